package migrations

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/lib/pq"
)

// connectTimeout bounds the wait for PostgreSQL's first answer, unless the
// connection string has a connect_timeout of its own.
const connectTimeout = 15 * time.Second

// connector connects to PostgreSQL. The driver's own one waits without end for
// a server that takes the connection and says nothing, whatever the context.
type connector struct{ *pq.Connector }

func newConnector(uri string) (connector, error) {
	settings, err := pq.NewConfig(uri)
	if err != nil {
		// The driver's message can repeat the connection string.
		return connector{}, errors.New("connect to PostgreSQL: the connection string is malformed")
	}
	if settings.ConnectTimeout <= 0 {
		settings.ConnectTimeout = connectTimeout
	}
	c, err := pq.NewConnectorConfig(settings)
	if err != nil {
		return connector{}, errors.New("connect to PostgreSQL: the connection string is malformed")
	}
	return connector{c}, nil
}

// Connect implements [driver.Connector]. When ctx is done it does not wait for
// the driver, which ends when its own time is over.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	type result struct {
		conn driver.Conn
		err  error
	}
	connected := make(chan result)
	go func() {
		conn, err := c.Connector.Connect(ctx)
		select {
		case connected <- result{conn, err}:
		case <-ctx.Done():
			if err == nil {
				_ = conn.Close()
			}
		}
	}()
	select {
	case r := <-connected:
		if r.err != nil {
			return nil, r.err // the driver's conn is a nil pointer in an interface then
		}
		return r.conn, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer yet: %w", ctx.Err())
	}
}
