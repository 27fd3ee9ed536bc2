package wire_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"passerelle/demo/wire"
)

// The test binary is also the program that runs in the network: it counts over
// TCP and over UDP, and says what comes back.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "count" {
		count(os.Args[2], os.Args[3])
	}
	os.Exit(m.Run())
}

func count(tcp, udp string) {
	for _, dial := range [][2]string{{"tcp", tcp}, {"udp", udp}} {
		conn, err := net.Dial(dial[0], dial[1])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		go func() {
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				fmt.Println(dial[0], lines.Text())
			}
		}()
		go func() {
			for n := 0; ; n++ {
				_, _ = fmt.Fprintln(conn, n)
				time.Sleep(10 * time.Millisecond)
			}
		}()
	}
	if conn, err := net.DialTimeout("tcp", "127.0.0.1:9", time.Second); err == nil || conn != nil {
		fmt.Println("something else can be reached")
	}
	select {}
}

// echo sends back whatever comes, over TCP and UDP.
func echo(t *testing.T) (tcp, udp string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = packets.Close() })
	go func() {
		buffer := make([]byte, 100)
		for {
			n, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(buffer[:n], from)
		}
	}()
	return listener.Addr().String(), packets.LocalAddr().String()
}

func TestWire(t *testing.T) {
	tcp, udp := echo(t)
	w, err := wire.New(wire.Route{Network: "tcp", Inside: "127.0.0.31:700", Outside: tcp}, wire.Route{Network: "udp", Inside: "127.0.0.31:700", Outside: udp})
	if errors.Is(err, unix.EPERM) && os.Getenv("PASSERELLE_REQUIRE_PARTS") != "1" {
		t.Skip("needs the right to make network namespaces")
	}
	require.NoError(t, err)
	t.Cleanup(w.Close)
	self, err := os.Executable()
	require.NoError(t, err)
	command := exec.Command(self, "count", "127.0.0.31:700", "127.0.0.31:700")
	stdout, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, w.Start(command))
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	said := make(chan string, 10_000)
	go func() {
		defer close(said)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			said <- lines.Text()
		}
	}()
	next := map[string]int{}
	// hear reads until each has come back so often, and returns what UDP lost.
	hear := func(times int) (lost int) {
		heard := map[string]int{}
		for heard["tcp"] < times || heard["udp"] < times {
			select {
			case line, ok := <-said:
				require.True(t, ok, "the program has ended")
				how, number, _ := strings.Cut(line, " ")
				var n int
				_, err := fmt.Sscan(number, &n)
				require.NoError(t, err, line)
				if how == "tcp" {
					require.Equal(t, next[how], n, "a connection loses nothing")
				}
				lost += n - next[how]
				next[how] = n + 1
				heard[how]++
			case <-time.After(10 * time.Second):
				require.FailNow(t, "nothing comes back")
			}
		}
		return lost
	}
	require.Zero(t, hear(20))
	w.Cut()
	for quiet := false; !quiet; { // what was on its way
		select {
		case line := <-said:
			how, number, _ := strings.Cut(line, " ")
			_, err := fmt.Sscan(number, new(int))
			require.NoError(t, err)
			next[how]++
		case <-time.After(300 * time.Millisecond):
			quiet = true
		}
	}
	w.Mend()
	require.Greater(t, hear(20), 10, "packets are lost")

	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	w.Close()
	_ = command.Process.Kill()
	<-ended
	require.Error(t, w.Start(exec.Command(self)))
}
