package migrations

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	// holdNumber is the advisory lock of those who run on a PostgreSQL database:
	// "hold" in ASCII.
	holdNumber = 0x686f6c64
	// holdEvery is how often a hold is looked after.
	holdEvery = 5 * time.Second
	// holdPause is how long a start waits before it tries again.
	holdPause = 100 * time.Millisecond
	// answerTimeout bounds one question to PostgreSQL about a hold.
	answerTimeout = 10 * time.Second
)

const (
	tryAlone  = `SELECT pg_try_advisory_lock(%d)`
	tryShared = `SELECT pg_try_advisory_lock_shared(%d)`
	// The machine of a process may vanish without a word: PostgreSQL then knows
	// within half a minute, and not after hours.
	keepAlive = `SELECT concat(set_config('tcp_keepalives_idle', '10', false),
		set_config('tcp_keepalives_interval', '5', false), set_config('tcp_keepalives_count', '3', false)) IS NOT NULL`
)

// HoldOptions say who holds a PostgreSQL database; all fields are required but
// Alone.
type HoldOptions struct {
	// URI is PostgreSQL's connection string. It is never logged.
	URI string
	// Alone: nobody else may hold it at the same time.
	Alone bool
	// Patience is how long a start waits for another process, which may just be
	// ending.
	Patience time.Duration
	Log      zerolog.Logger
}

// Hold keeps others from a PostgreSQL database, for as long as its process lives,
// by a connection of its own. It is for one goroutine at a time.
type Hold struct {
	options   HoldOptions
	connector connector
	dialer    *lastDialed
	// conn has the lock; nil when it was lost.
	conn driver.Conn
	// state is what was last logged: nil while it is held.
	state error
}

// HoldPostgres takes the hold, and waits with patience for who has it. It fails
// with [ErrInUse] when they keep it.
func HoldPostgres(ctx context.Context, o HoldOptions) (*Hold, error) {
	c, err := newConnector(o.URI)
	if err != nil {
		return nil, err
	}
	h := &Hold{options: o, connector: c, dialer: &lastDialed{}}
	c.Dialer(h.dialer)
	given := time.NewTimer(o.Patience)
	defer given.Stop()
	for {
		err := h.take(ctx)
		switch {
		case err == nil:
			return h, nil
		case !errors.Is(err, ErrInUse):
			return nil, err
		}
		select {
		case <-time.After(holdPause):
		case <-given.C:
			return nil, err
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}

// Run looks after the hold until ctx is done.
func (h *Hold) Run(ctx context.Context) error {
	tick := time.NewTicker(holdEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			h.Keep(ctx)
		}
	}
}

// Keep takes the hold again if its connection was lost, as when PostgreSQL was
// started again. When it cannot, because somebody else was faster, that is logged
// and no more: calls that run go on.
func (h *Hold) Keep(ctx context.Context) {
	if h.conn != nil {
		_, err := h.ask(ctx, "SELECT true")
		if err == nil || ctx.Err() != nil {
			return
		}
		h.drop()
	}
	err := h.take(ctx)
	if ctx.Err() != nil {
		return
	}
	before := h.state
	h.state = err
	switch {
	case err == nil:
		h.options.Log.Info().Msg("The lock of the database was lost with its connection, and is taken again")
	case errors.Is(err, ErrInUse) && !errors.Is(before, ErrInUse):
		h.options.Log.Error().Err(err).Msg("Another Passerelle has taken the database while PostgreSQL could not be reached: " +
			"each takes the other's participants for gone; stop one of them")
	case before == nil:
		h.options.Log.Warn().Err(err).Msg("The lock of the database is lost; it is taken again as soon as PostgreSQL can be reached")
	}
}

// Release ends the hold. Call it when Run has ended.
func (h *Hold) Release() { h.drop() }

// take connects and takes the lock, or leaves nothing behind.
func (h *Hold) take(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if h.conn, err = h.connector.Connect(ctx); err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	try, taken := tryShared, false
	if h.options.Alone {
		try = tryAlone
	}
	if _, err = h.ask(ctx, keepAlive); err == nil {
		taken, err = h.ask(ctx, fmt.Sprintf(try, holdNumber))
	}
	switch {
	case err != nil:
		err = fmt.Errorf("lock the database: %w", err)
	case !taken && h.options.Alone:
		err = fmt.Errorf("%w: a Passerelle with the media server inside needs one of its own; "+
			"give it another, or use livekit.mode external with one LiveKit for all", ErrInUse)
	case !taken:
		err = fmt.Errorf("%w, with the media server inside: give each a database of its own, "+
			"or use livekit.mode external with one LiveKit for all", ErrInUse)
	default:
		return nil
	}
	h.drop()
	return err
}

func (h *Hold) drop() {
	if h.conn == nil {
		return
	}
	h.dialer.limit(time.Now().Add(time.Second)) // it says goodbye
	_ = h.conn.Close()
	h.conn = nil
}

// ask puts a question that is answered with yes or no. The driver does not give
// up by itself when the server falls silent: the connection has to.
func (h *Hold) ask(ctx context.Context, question string) (yes bool, err error) {
	h.dialer.limit(time.Now().Add(answerTimeout))
	stop := context.AfterFunc(ctx, func() { h.dialer.limit(time.Now()) })
	defer stop()
	// Its own way to give up is another connection, on which it asks for that.
	rows, err := h.conn.(driver.QueryerContext).QueryContext(context.WithoutCancel(ctx), question, nil)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(row); err != nil {
		return false, err
	}
	yes, _ = row[0].(bool)
	return yes, nil
}

// lastDialed connects as the driver would, and knows the connection.
type lastDialed struct {
	net.Dialer

	mu   sync.Mutex
	conn net.Conn
}

// DialContext implements the driver's interface.
func (d *lastDialed) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conn = conn
	return conn, nil
}

// DialTimeout implements the driver's interface.
func (d *lastDialed) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

// limit is until when the connection may take for what it does.
func (d *lastDialed) limit(until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.SetDeadline(until)
	}
}
