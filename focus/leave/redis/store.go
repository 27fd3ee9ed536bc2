// Package redis keeps delayed leaves where lk-jwt-service keeps them, in the
// same form: a Redis hash. So an installation of that service can be switched
// to Passerelle and back while people are in calls.
//
// PING, HSET, HDEL and HGETALL are all that it asks of Redis. A [Store] is safe
// for concurrent use.
package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/rs/zerolog"

	"passerelle/config"
	"passerelle/focus/leave"
	"passerelle/focus/matrixrtc"
)

// hash is the key under which lk-jwt-service has its jobs.
const hash = "lk-jwt:jobs"

const (
	// callTimeout bounds one command, connecting included.
	callTimeout = 3 * time.Second
	// maxConns bounds the pool.
	maxConns = 8
)

// Store is a [leave.Store] over a Redis hash. The hash has one field for a
// participant; who wrote it last owns it.
//
// A Redis that does not answer keeps nobody from their call: what could not be
// written is logged, and a job that stays behind is dropped at the next start
// once its delay is over.
type Store struct {
	client  *redis.Client
	log     zerolog.Logger
	stripes [64]stripe
}

// stripe has some of the participants. What concerns one participant happens
// in turn, Redis included; others do not wait for it.
type stripe struct {
	mu sync.Mutex
	// held is what is in the hash, as far as we put or found it there.
	held map[participant]held
}

type participant struct {
	room     matrixrtc.SFURoom
	identity matrixrtc.Identity
}

type held struct {
	job       string // the ID of the job
	field     string // as it is spelled in the hash
	restarted time.Time
}

// Options say which Redis it is.
type Options struct {
	// URL is its address: redis, rediss or unix. It may hold a password.
	URL config.Secret
	// Password, unless it is empty, stands for the one in URL.
	Password config.Secret
	Log      zerolog.Logger
}

func init() {
	// The library writes lines of its own to standard error.
	redis.SetLogger(silence{})
}

type silence struct{}

// Printf implements the library's logger.
func (silence) Printf(context.Context, string, ...any) {}

// Open connects to the Redis. Its errors do not hold the address.
func Open(ctx context.Context, o Options) (*Store, error) {
	options, err := redis.ParseURL(o.URL.Reveal())
	if err != nil {
		return nil, errors.New("connect to Redis: the address is malformed")
	}
	if o.Password != "" {
		options.Password = o.Password.Reveal()
	}
	options.Protocol = 2
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout = callTimeout, callTimeout, callTimeout
	options.PoolSize, options.MaxRetries = maxConns, 1
	s := &Store{client: redis.NewClient(options), log: o.Log}
	for i := range s.stripes {
		s.stripes[i].held = map[participant]held{}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	if err := s.client.Ping(ctx).Err(); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to Redis: %w", err), s.client.Close())
	}
	return s, nil
}

// Close lets go of the connections.
func (s *Store) Close() error { return s.client.Close() }

// Load implements [leave.Store]: it returns what lk-jwt-service or an earlier
// Passerelle left behind. Those whose delay is over are deleted: the homeserver
// has sent them. What it cannot read stays where it is.
func (s *Store) Load(ctx context.Context) ([]leave.Job, error) {
	fields, err := s.client.HGetAll(ctx, hash).Result()
	if err != nil {
		return nil, fmt.Errorf("read delayed leaves from Redis: %w", err)
	}
	now := time.Now()
	var jobs []leave.Job
	var expired []string
	strange := 0
	for field, value := range fields {
		job, err := decode(field, value, now)
		switch {
		case err != nil:
			strange++
		case !now.Before(job.RestartedAt.Add(job.Delay)):
			expired = append(expired, field)
		default:
			jobs = append(jobs, job)
			at, who := s.at(job)
			at.mu.Lock()
			at.held[who] = held{job.ID, field, job.RestartedAt}
			at.mu.Unlock()
		}
	}
	if strange > 0 {
		s.log.Warn().Int("count", strange).Msg("Delayed leaves in Redis that cannot be read stay there")
	}
	if len(expired) > 0 {
		s.logged(s.client.HDel(ctx, hash, expired...).Err(), "Expired delayed leaves not deleted from Redis")
	}
	return jobs, nil
}

// at is where the job's participant is held.
func (s *Store) at(j leave.Job) (*stripe, participant) {
	who := participant{j.Room, j.Identity}
	return &s.stripes[maphash.Comparable(seed, who)%uint64(len(s.stripes))], who
}

var seed = maphash.MakeSeed()

// Add implements [leave.Store]. It replaces what is there for the participant.
func (s *Store) Add(ctx context.Context, j leave.Job) error {
	at, who := s.at(j)
	at.mu.Lock()
	defer at.mu.Unlock()
	s.write(ctx, at, who, j)
	return nil
}

// Update implements [leave.Store]. Of a job only the time of its last restart
// changes in Redis, and only as long as none took its place.
func (s *Store) Update(ctx context.Context, j leave.Job) error {
	at, who := s.at(j)
	at.mu.Lock()
	defer at.mu.Unlock()
	if h := at.held[who]; h.job == j.ID && !h.restarted.Equal(j.RestartedAt) {
		s.write(ctx, at, who, j)
	}
	return nil
}

func (s *Store) write(ctx context.Context, at *stripe, who participant, j leave.Job) {
	h := held{j.ID, cmp.Or(at.held[who].field, fieldOf(j)), j.RestartedAt}
	at.held[who] = h
	s.logged(s.client.HSet(ctx, hash, h.field, encode(j)).Err(), "Delayed leave not written to Redis")
}

// Remove implements [leave.Store].
func (s *Store) Remove(ctx context.Context, j leave.Job) error {
	at, who := s.at(j)
	at.mu.Lock()
	defer at.mu.Unlock()
	h := at.held[who]
	if h.job != j.ID {
		return nil // another took its place
	}
	delete(at.held, who)
	s.logged(s.client.HDel(ctx, hash, h.field).Err(), "Delayed leave not deleted from Redis")
	return nil
}

func (s *Store) logged(err error, what string) {
	if err != nil {
		s.log.Err(err).Msg(what)
	}
}
