// Package focus is what MatrixRTC clients call the focus: it authorises the
// users who want to join a call, allocates the SFU session for it, keeps the
// rows that say who was given what, and records what the SFU reports.
//
// It never speaks to a homeserver or an SFU itself; it does so through the
// small interfaces below, which app fills in. A [Service] is safe for
// concurrent use; only its Run starts work that outlives a request.
package focus

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/singleflight"
	"maunium.net/go/mautrix/id"

	"passerelle/config"
	"passerelle/focus/matrixrtc"
)

// Verifier proves who somebody is. federation.OpenID is one.
type Verifier interface {
	// Verify asks the homeserver that the token names whose token it is. The
	// answer belongs to that homeserver, or is an error.
	Verify(ctx context.Context, token matrixrtc.OpenIDToken) (id.UserID, error)
}

// Policy says what the users of a server may do. It is pure: no I/O.
// federation.Policy is one.
type Policy interface {
	Access(serverName string) matrixrtc.Access
}

// RoomRules says what the own rules of a Matrix room let a user do in its calls:
// its power levels, its slot, its kind. It answers from what it knows already
// and soon.
type RoomRules interface {
	// Rights are what the room allows; the policy may allow less. known is false
	// where nobody has read the room's rules: then the policy alone decides. An
	// error means that they cannot be read now, and gives nobody anything new.
	Rights(ctx context.Context, slot matrixrtc.SlotKey, user id.UserID) (r matrixrtc.Rights, known bool, err error)
}

// Owners says whose SFUs are where. It is pure: no I/O. federation.Policy is one.
type Owners interface {
	// Owners lists the servers, all of which may join, that may have the SFU at
	// an address; none for an address that nobody who is known can have.
	Owners(sfuURL string) []string
}

// SFU is one SFU. livekit.Rooms is one.
type SFU interface {
	// EnsureRoom makes the room, or leaves the one that exists as it is.
	EnsureRoom(ctx context.Context, room matrixrtc.SFURoom, o matrixrtc.RoomOptions) error
	// Participants lists the people who are connected to the room. A room that
	// does not exist has nobody in it.
	Participants(ctx context.Context, room matrixrtc.SFURoom) ([]matrixrtc.Participant, error)
	// Remove disconnects a participant. One that is not there is no error.
	Remove(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) error
	// Allow changes what a participant who is connected may do, and ends what it
	// may not do any more. One that is not there is no error.
	Allow(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity, p matrixrtc.Permissions) error
	// End closes the room and disconnects everybody. One that does not exist is
	// no error.
	End(ctx context.Context, room matrixrtc.SFURoom) error
}

// Door is where clients' signalling passes. door.Door is one.
type Door interface {
	// Cut ends the participant's signalling connections, and those that are
	// about to be let in by a decision from before the call. It does not wait.
	Cut(room matrixrtc.SFURoom, who matrixrtc.Identity)
}

// Observer is told what happened on the SFUs, after it was committed, whether
// the SFU reported it or it was found by asking. It may be told the same more
// than once, and it is not told again after a crash: what must not be missed is
// in the rows. It must return soon.
type Observer interface {
	SFUEvent(ctx context.Context, e matrixrtc.SFUEvent)
}

// Tokens signs what the SFU and the door accept. livekit.Tokens is one.
type Tokens interface {
	Sign(g matrixrtc.Grant) (string, error)
}

// Limits bounds how often tokens are asked for. Each method counts a request
// and returns zero, or how long to wait. federation.Limits is one.
type Limits interface {
	Address(address string) time.Duration
	Server(name string) time.Duration
	User(user id.UserID) time.Duration
}

// Options are what a Service needs; fields are required unless they say
// otherwise.
type Options struct {
	Config   config.Focus
	Store    *Store
	Verifier Verifier
	Policy   Policy
	// Rules are those of the rooms; nil where nobody knows them, and the policy
	// alone decides. Whoever knows them calls [Service.RulesChanged].
	Rules RoomRules
	// Owners knows the SFUs of others; nil knows none.
	Owners Owners
	// SFUs are those of this process, by the name that stands in the rows.
	SFUs map[string]SFU
	// Home is the name of the one that gets new calls.
	Home   string
	Tokens Tokens
	Limits Limits
	// RoomsKeptInMind is for how long the SFU, once asked to have a room, is not
	// asked again by each token for it; zero asks for each. The door asks
	// whenever somebody connects, so that no token leads to a missing room.
	RoomsKeptInMind time.Duration
	// Members says who is in a room; nil where nobody can be asked.
	Members Members
	// Remote reaches the services beside other homeservers; nil where there is
	// no way to them.
	Remote Remote
	// MembersEvery is how often it is asked whether those in calls are still in
	// their rooms: the longest that somebody who was thrown out of a room stays
	// in its call. 0 is never; else it is a millisecond at least.
	MembersEvery time.Duration
	// ServerName is our own homeserver's; empty where there is none.
	ServerName string
	// SFUAddress, unless it is empty, is what clients are given for PublicURL,
	// as it stands.
	SFUAddress string
	// NoDoor: clients reach the SFU without the door, so that the SFU itself has
	// to hold the number of participants.
	NoDoor bool
	// SharedSFU: others let people in to the SFU as well, and may have done so
	// for the same calls. Who is there without a grant of ours is left alone,
	// unless it was one that was taken back; observers are told of everything,
	// and the SFU is asked for nothing but the room, once for each token.
	SharedSFU bool
	// Unrecorded: neither grants nor what the SFU reports is stored, since it
	// would be gone before anybody asked for it. For a SharedSFU alone.
	Unrecorded bool
	// ProofsForAnyUse: an OpenID token is good for more than one room and
	// device, for as long as its homeserver says so.
	ProofsForAnyUse bool
	// UpdateOwnMetadata lets participants change their name and attributes on
	// the SFU.
	UpdateOwnMetadata bool
	// Leaves takes over delayed leaves; nil where nobody does.
	Leaves Leaves
	// Observers are told of each event in this order. They are optional.
	Observers []Observer
	// PublicURL is where clients are sent for their signalling: http or https,
	// which are written as ws and wss, or one of those.
	PublicURL *url.URL
	// Announced is the address of the SFU that our homeserver announces, by
	// which others ask for it, in the same schemes; nil is PublicURL.
	Announced  *url.URL
	Log        zerolog.Logger
	Registerer prometheus.Registerer
}

// Service answers token requests and keeps the record of calls.
type Service struct {
	store    *Store
	verifier Verifier
	policy   Policy
	rules    RoomRules
	changes  *changes
	owners   Owners
	sfus     map[string]SFU
	home     string
	tokens   Tokens
	limits   Limits
	members  Members
	leaves   Leaves
	remote   Remote
	// membersEvery is 0 where nobody asks again.
	membersEvery time.Duration
	// serverName is our homeserver's.
	serverName string
	// sfuURL is where clients are sent; announced what they ask for.
	sfuURL, announced string
	// The SFU is shared; proofs are for any use; grants and events are not
	// recorded; participants may update their metadata.
	shared, anyUse, unrecorded, metadata bool
	// noDoor: not all clients come through the door.
	noDoor bool

	config   atomic.Pointer[config.Focus]
	ensuring singleflight.Group
	// ensured are the rooms that the SFU was asked to have lately.
	ensured  *recent
	gate     *gate
	relays   *relays
	proofs   *proofs
	openings *openings
	// door and observers are set before anything runs.
	door      Door
	observers []Observer
	misses    misses
	onlookers *onlookers
	log       zerolog.Logger
	metrics   metrics
	now       func() time.Time
}

// New returns a Service. It starts nothing; see [Service.Run].
func New(o Options) (*Service, error) {
	sfuURL, err := webSocketURL(o.PublicURL)
	if err != nil {
		return nil, err
	}
	if o.SFUs[o.Home] == nil {
		return nil, fmt.Errorf("there is no SFU %q", o.Home)
	}
	s := &Service{
		store:      o.Store,
		verifier:   o.Verifier,
		policy:     o.Policy,
		rules:      o.Rules,
		changes:    newChanges(),
		owners:     o.Owners,
		sfus:       o.SFUs,
		home:       o.Home,
		tokens:     o.Tokens,
		limits:     o.Limits,
		members:    o.Members,
		serverName: o.ServerName,
		leaves:     o.Leaves,
		remote:     o.Remote,
		sfuURL:     cmp.Or(o.SFUAddress, sfuURL),
		noDoor:     o.NoDoor,
		shared:     o.SharedSFU,
		anyUse:     o.ProofsForAnyUse,
		unrecorded: o.Unrecorded && o.SharedSFU,
		metadata:   o.UpdateOwnMetadata,
		announced:  sfuURL,
		observers:  o.Observers,
		ensured:    newRecent(o.RoomsKeptInMind),
		gate:       newGate(maxInWork),
		relays:     newRelays(),
		proofs:     newProofs(maxProofs),
		openings:   newOpenings(),
		onlookers:  newOnlookers(),
		log:        o.Log,
		now:        time.Now,

		membersEvery: o.MembersEvery,
	}
	if s.rules == nil {
		s.rules = unknownRules{}
	}
	if o.Announced != nil {
		if s.announced, err = webSocketURL(o.Announced); err != nil {
			return nil, err
		}
	}
	s.metrics = newMetrics(o.Registerer, s.gate)
	s.Reconfigure(o.Config)
	return s, nil
}

// webSocketURL writes http and https as ws and wss.
func webSocketURL(u *url.URL) (string, error) {
	fresh := *u
	switch fresh.Scheme {
	case "http":
		fresh.Scheme = "ws"
	case "https":
		fresh.Scheme = "wss"
	case "ws", "wss":
	default:
		return "", fmt.Errorf("public address %q: scheme must be http, https, ws or wss", u)
	}
	return fresh.String(), nil
}

// Reconfigure makes later requests follow another configuration.
func (s *Service) Reconfigure(c config.Focus) { s.config.Store(&c) }

// UseDoor names the door at which revocations cut connections; without one
// they only keep people from coming back. Call it before anything is served.
func (s *Service) UseDoor(d Door) { s.door = d }
