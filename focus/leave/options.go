package leave

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"passerelle/config"
	"passerelle/focus/matrixrtc"
)

// SFU says who is there. livekit.Rooms is one.
type SFU interface {
	// Participant returns the connection of the identity, and whether there is
	// one.
	Participant(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) (matrixrtc.Participant, bool, error)
}

// API is the client-server API of one homeserver.
type API struct {
	// URL is its base, such as https://matrix.example.org; it may have a path.
	URL *url.URL
	// Token, if there is one, is shown with each call, which is then not
	// limited as a stranger's is.
	Token config.Secret
	// Client makes the calls. It follows no redirects.
	Client *http.Client
}

// Homeservers finds the client-server APIs of homeservers.
type Homeservers interface {
	// API returns that of a server, from memory where it was found lately.
	API(ctx context.Context, server string) (API, error)
	// Own returns that of our own homeserver, and whether there is one.
	Own() (API, bool)
}

// Options are what Leaves need. Store, Homeservers, SFU and Registerer are
// required; a zero Timing is [DefaultTiming].
type Options struct {
	Store       Store
	Homeservers Homeservers
	SFU         SFU
	Timing      Timing
	Log         zerolog.Logger
	Registerer  prometheus.Registerer
}

// Timing says how patient Leaves are. All counts and times are more than 0
// unless it is said what 0 means.
type Timing struct {
	// MinDelay and MaxDelay bound the delay that clients name.
	MinDelay, MaxDelay time.Duration
	// RestartAt is the share of the delay after which a leave is put off, and
	// MinPause the least time in between; 0 is none.
	RestartAt float64
	MinPause  time.Duration
	// MaxWait bounds, with the delay, how long a participant may take to
	// connect.
	MaxWait time.Duration
	// LookFirst is the pause after the first look for a participant who has not
	// connected; it doubles up to LookCap. LookEvery is the pause between looks
	// for one who has; 0 is never.
	LookFirst, LookCap, LookEvery time.Duration
	// MissPause is what has to lie between two looks that find nobody where
	// nothing was reported; 0 lets one look decide.
	MissPause time.Duration
	// ReconnectWait is how long a participant has to come back whose connection
	// ended because another one was to follow; one look decides then. So long
	// have those, too, whom a process that has just started does not find.
	ReconnectWait time.Duration
	// JoinWait is how long a connection that the SFU lists and that never became
	// active counts as there; 0 is for ever.
	JoinWait time.Duration
	// Grace is how long participants have to come back after the SFU is there
	// again.
	Grace time.Duration
	// RetryFirst is the pause after a homeserver's first failure; it grows by
	// half each time, up to RetryCap. CallTimeout bounds one call.
	RetryFirst, RetryCap, CallTimeout time.Duration
	// PaceEvery and PaceBurst are how often a homeserver is called to which we
	// show no token: once in that time, after as many one after the other.
	PaceEvery time.Duration
	PaceBurst int
	// MaxPerUser and MaxJobs bound how many leaves are kept.
	MaxPerUser, MaxJobs int

	// EndFailed ends a leave as soon as its participant's attempt to connect
	// failed, without waiting for another one.
	EndFailed bool
	// IgnoreEarlyEnds: the end of a connection says nothing while its
	// participant is waited for; it may be that of the page before.
	IgnoreEarlyEnds bool
	// SilenceConfirms takes an SFU that does not answer as a confirmation of
	// the end that it reported.
	SilenceConfirms bool
	// KeepReplaced leaves a leave alone whose place another one took; else it
	// is cancelled.
	KeepReplaced bool
}

// DefaultTiming is for a Passerelle with a configuration.
//
// A leave is put off at half of its delay, so that half is left for trouble.
// The pace is Synapse's default limit, 1 a second and 5 at once, and a little
// less, as clocks differ. Grace is LiveKit's own
// departure timeout: its clients try to come back at most 7 s apart, which is
// ReconnectWait. Within JoinWait they give up on an attempt to connect by
// themselves (after 15 s).
func DefaultTiming() Timing {
	return Timing{
		MinDelay: 15 * time.Second, MaxDelay: 24 * time.Hour,
		RestartAt: 0.5, MinPause: 10 * time.Second,
		MaxWait:   time.Hour,
		LookFirst: time.Second, LookCap: time.Minute, LookEvery: time.Minute,
		MissPause: 5 * time.Second, ReconnectWait: 7 * time.Second, JoinWait: 25 * time.Second,
		Grace:      20 * time.Second,
		RetryFirst: time.Second, RetryCap: 15 * time.Second, CallTimeout: 10 * time.Second,
		PaceEvery: 1010 * time.Millisecond, PaceBurst: 5,
		MaxPerUser: 20, MaxJobs: 100_000,
	}
}
