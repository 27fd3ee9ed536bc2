// Package sfu runs the SFU as a supervised child process of the same binary:
// `passerelle sfu`, which is package child and the only place where LiveKit's
// server is linked. A fault in the packets' path ends the child and nothing
// else, and calls go on when Passerelle itself ends.
//
// The two processes know each other through a control socket in the data
// folder. As long as a Passerelle holds a connection to it, its leash, the
// child lives; the end of the connection tells either side at once that the
// other is gone. A Passerelle that starts finds the socket of a child that is
// already there and takes it over, if it runs with the same settings.
//
// Everything a [Supervisor] does happens within its Run.
package sfu
