package federationtest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Silent is a listener that takes connections and never says a word. It serves
// as a server that hangs, and as a place where nobody may ever connect to.
type Silent struct {
	listener    net.Listener
	connections atomic.Int64
	serving     sync.WaitGroup
}

// Listen starts a Silent at an address, host:port, which ends with the test.
func Listen(t testing.TB, address string) *Silent {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &Silent{listener: listener}
	s.serving.Go(s.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		s.serving.Wait()
	})
	return s
}

// Name is the address, which is a server name too.
func (s *Silent) Name() string { return s.listener.Addr().String() }

// Connections is how many connections were made.
func (s *Silent) Connections() int { return int(s.connections.Load()) }

func (s *Silent) serve() {
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			_ = conn.Close()
		}
	}()
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.connections.Add(1)
		open = append(open, conn)
		s.serving.Go(func() { _, _ = io.Copy(io.Discard, conn) })
	}
}
