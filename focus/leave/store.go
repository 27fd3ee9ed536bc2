package leave

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.mau.fi/util/dbutil"

	"passerelle/focus/matrixrtc"
)

// ErrNotOurs is returned by [Store.Update] for a leave that another process
// looks after now, or that is gone.
var ErrNotOurs = errors.New("the leave is not ours any more")

// Store keeps leaves over restarts. Each method returns once it is done for
// good. Implementations are safe for concurrent use.
type Store interface {
	// Load returns what an earlier process left behind.
	Load(ctx context.Context) ([]Job, error)
	Add(ctx context.Context, j Job) error
	// Update writes State, Delay, RestartedAt and GoneAt.
	Update(ctx context.Context, j Job) error
	Remove(ctx context.Context, j Job) error
}

// Shared is a Store that several processes use at once. Each leave belongs to
// one of them, for as long as that one renews it.
type Shared interface {
	Store
	// Renew keeps what is ours and returns what it took over from processes
	// that did not renew theirs; after a failure, also what was ours before.
	Renew(ctx context.Context) ([]Job, error)
	// Take takes over, from whoever has them, the leaves that watch an
	// identity.
	Take(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) ([]Job, error)
	// Release lets others take over at once what is ours.
	Release(ctx context.Context) error
}

// leaseFor is how long a leave belongs to a process that does not renew it.
const leaseFor = 20 * time.Second

// NewStore returns the store over a database that is on the latest schema. On
// PostgreSQL it is [Shared]; an SQLite file has one process.
func NewStore(db *dbutil.Database) Store {
	s := rows{db: db, owner: rand.Text()}
	if db.Dialect == dbutil.Postgres {
		s.lease = leaseFor
		return &sharedRows{rows: s}
	}
	return &s
}

type rows struct {
	db    *dbutil.Database
	owner string
	lease time.Duration
}

const (
	columns = `job_id, sfu_room, identity, also_identity, user_id, server_name, delay_id, delay_ms, state,
		created_at, restarted_at, gone_at`
	claimRows = `
		UPDATE delayed_leave SET owner = $1, lease_until = $2 WHERE lease_until < $3 AND owner <> $1
		RETURNING ` + columns
	addRow = `
		INSERT INTO delayed_leave (` + columns + `, owner, lease_until)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`
	updateRow = `
		UPDATE delayed_leave SET state = $2, delay_ms = $3, restarted_at = $4, gone_at = $5, lease_until = $6
		WHERE job_id = $1 AND owner = $7`
	removeRow = `DELETE FROM delayed_leave WHERE job_id = $1 AND owner = $2`
)

func (s *rows) leaseUntil() int64 {
	if s.lease == 0 {
		return 0
	}
	return time.Now().Add(s.lease).UnixMilli()
}

// Load implements [Store].
func (s *rows) Load(ctx context.Context) ([]Job, error) {
	return s.query(ctx, claimRows, s.owner, s.leaseUntil(), time.Now().UnixMilli())
}

func (s *rows) query(ctx context.Context, query string, args ...any) ([]Job, error) {
	found, err := s.db.Query(ctx, query, args...)
	jobs, err := dbutil.NewRowIterWithError(found, scanJob, err).AsList()
	if err != nil {
		return nil, fmt.Errorf("read delayed leaves: %w", err)
	}
	return jobs, nil
}

func scanJob(row dbutil.Scannable) (j Job, err error) {
	var delay, created, restarted int64
	var gone *int64
	err = row.Scan(&j.ID, &j.Room, &j.Identity, &j.Also, &j.User, &j.Server, (*string)(&j.DelayID), &delay, &j.State,
		&created, &restarted, &gone)
	j.Delay = time.Duration(delay) * time.Millisecond
	j.CreatedAt, j.RestartedAt = time.UnixMilli(created), time.UnixMilli(restarted)
	if gone != nil {
		j.GoneAt = time.UnixMilli(*gone)
	}
	return j, err
}

// Add implements [Store].
func (s *rows) Add(ctx context.Context, j Job) error {
	_, err := s.db.Exec(ctx, addRow, j.ID, j.Room, j.Identity, j.Also, j.User, j.Server, j.DelayID.Reveal(),
		j.Delay.Milliseconds(), j.State, j.CreatedAt.UnixMilli(), j.RestartedAt.UnixMilli(), gone(j), s.owner, s.leaseUntil())
	if err != nil {
		return fmt.Errorf("store delayed leave: %w", err)
	}
	return nil
}

// Update implements [Store].
func (s *rows) Update(ctx context.Context, j Job) error {
	result, err := s.db.Exec(ctx, updateRow, j.ID, j.State, j.Delay.Milliseconds(), j.RestartedAt.UnixMilli(), gone(j),
		s.leaseUntil(), s.owner)
	if err != nil {
		return fmt.Errorf("store delayed leave: %w", err)
	}
	changed, err := result.RowsAffected()
	if err == nil && changed == 0 {
		return ErrNotOurs
	}
	return err
}

// Remove implements [Store].
func (s *rows) Remove(ctx context.Context, j Job) error {
	if _, err := s.db.Exec(ctx, removeRow, j.ID, s.owner); err != nil {
		return fmt.Errorf("delete delayed leave: %w", err)
	}
	return nil
}

// gone is GoneAt as a column.
func gone(j Job) *int64 {
	if j.GoneAt.IsZero() {
		return nil
	}
	at := j.GoneAt.UnixMilli()
	return &at
}

type sharedRows struct {
	rows
	// unsure: rows may be ours of which nobody here knows, since the database did
	// what it was asked and the answer was lost. Nobody else would look after them.
	unsure atomic.Bool
}

const (
	renewRows = `UPDATE delayed_leave SET lease_until = $2 WHERE owner = $1`
	renewAll  = renewRows + ` RETURNING ` + columns
	takeRows  = `
		UPDATE delayed_leave SET owner = $1, lease_until = $2
		WHERE sfu_room = $3 AND (identity = $4 OR also_identity = $4) AND owner <> $1
		RETURNING ` + columns
	releaseRows = `UPDATE delayed_leave SET lease_until = 0 WHERE owner = $1`
)

// Renew implements [Shared].
func (s *sharedRows) Renew(ctx context.Context) ([]Job, error) {
	var known []Job
	var err error
	if s.unsure.Swap(false) {
		known, err = s.query(ctx, renewAll, s.owner, s.leaseUntil())
	} else if _, err = s.db.Exec(ctx, renewRows, s.owner, s.leaseUntil()); err != nil {
		err = fmt.Errorf("renew delayed leaves: %w", err)
	}
	if s.doubt(err) != nil {
		return nil, err
	}
	taken, err := s.Load(ctx)
	return append(known, taken...), err
}

// Load implements [Store].
func (s *sharedRows) Load(ctx context.Context) ([]Job, error) {
	jobs, err := s.rows.Load(ctx)
	return jobs, s.doubt(err)
}

// Add implements [Store].
func (s *sharedRows) Add(ctx context.Context, j Job) error { return s.doubt(s.rows.Add(ctx, j)) }

// Take implements [Shared].
func (s *sharedRows) Take(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) ([]Job, error) {
	jobs, err := s.query(ctx, takeRows, s.owner, s.leaseUntil(), room, who)
	return jobs, s.doubt(err)
}

// doubt notes that what failed may have been done.
func (s *sharedRows) doubt(err error) error {
	if err != nil {
		s.unsure.Store(true)
	}
	return err
}

// Release implements [Shared].
func (s *sharedRows) Release(ctx context.Context) error {
	if _, err := s.db.Exec(ctx, releaseRows, s.owner); err != nil {
		return fmt.Errorf("release delayed leaves: %w", err)
	}
	return nil
}
