// Package sfu runs the SFU as a supervised child process of the same binary:
// `passerelle sfu`, which is package child and the only place where LiveKit's
// server is linked. A fault in the packets' path ends the child and nothing
// else, and calls go on when Passerelle itself ends. It never makes a room and
// never speaks to LiveKit; whoever does uses [Supervisor.APIURL].
//
// The two processes know each other through a control socket in the data
// folder. As long as a Passerelle holds a connection to it, its leash, the
// child lives; the end of the connection tells either side at once that the
// other is gone. A Passerelle that starts finds the socket of a child that is
// already there and takes it over, if it runs with the same settings; a newly
// started child is met in the same way. What a child that was taken over
// writes to its standard error is lost: the pipe's reader died with its first
// parent.
//
// Everything a [Supervisor] does happens within its Run; its other methods may
// be called by any goroutine.
package sfu
