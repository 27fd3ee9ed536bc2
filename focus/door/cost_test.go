package door_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
)

// quietSFU takes WebSockets and holds no more of each than its connection.
func quietSFU(b *testing.B) *url.URL {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	held := make(chan net.Conn, 1<<16)
	b.Cleanup(func() {
		for len(held) > 0 {
			_ = (<-held).Close()
		}
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n")
			held <- conn
		}
	}()
	return &url.URL{Scheme: "http", Host: l.Addr().String()}
}

// upgrade connects and reads the answer's head, a byte at a time so that
// nothing of it stays.
func upgrade(b *testing.B, address string) net.Conn {
	b.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		b.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /rtc?access_token=good HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\r\n")
	head, one := "", make([]byte, 1)
	for !strings.HasSuffix(head, "\r\n\r\n") {
		if _, err := conn.Read(one); err != nil {
			b.Fatal(err, head)
		}
		head += string(one)
	}
	if !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		b.Fatal(head)
	}
	return conn
}

// BenchmarkConnect is what one more signalling connection costs: the time until
// it stands, and the memory that it holds while it is idle (heap and stacks of
// the door, of the test's client and of its SFU together).
func BenchmarkConnect(b *testing.B) {
	server, _ := serve(b, admitGood(quietSFU(b)))
	_ = upgrade(b, server.URL).Close()
	conns := make([]net.Conn, 0, b.N)
	before := inUse()
	b.ResetTimer()
	for range b.N {
		conns = append(conns, upgrade(b, server.URL))
	}
	b.StopTimer()
	b.ReportMetric(float64(inUse()-before)/float64(b.N), "B/idle")
	for _, conn := range conns {
		_ = conn.Close()
	}
}

func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
