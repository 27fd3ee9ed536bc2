package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// The generator and the stubs share the machine with what they measure, and a
// closed loop is as slow as its slowest part. So they speak no more HTTP/1.1
// than the programs here do: kept connections, one request at a time, bodies of
// a known length.

// answerTimeout bounds the wait for one answer.
const answerTimeout = 30 * time.Second

// asker is one connection that asks.
type asker struct {
	conn    net.Conn
	answers *bufio.Reader
	host    string
	request []byte
}

// dial connects to an address that begins with http://.
func dial(address string) (*asker, error) {
	host := strings.TrimPrefix(address, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return nil, err
	}
	return &asker{conn: conn, answers: bufio.NewReader(conn), host: host}, nil
}

func (c *asker) close() error { return c.conn.Close() }

// post returns once the whole answer is there. The header is lines beside those
// that every request has. Any status but 200 is an error.
func (c *asker) post(route, header string, body []byte) error {
	c.request = fmt.Appendf(c.request[:0], "POST %s HTTP/1.1\r\nHost: %s\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		route, c.host, header, len(body))
	c.request = append(c.request, body...)
	if err := c.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	first, length, err := readHead(c.answers)
	if err != nil {
		return err
	}
	if strings.HasPrefix(first, "HTTP/1.1 200 ") {
		_, err = c.answers.Discard(length)
		return err
	}
	text, err := io.ReadAll(io.LimitReader(c.answers, int64(length)))
	return errors.Join(fmt.Errorf("%s: %s: %s", route, first, text), err)
}

// readHead reads up to the body, and returns the first line and the body's
// length.
func readHead(from *bufio.Reader) (first string, length int, err error) {
	for {
		line, err := from.ReadSlice('\n')
		if err != nil {
			return "", 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch name, value, _ := bytes.Cut(line, []byte(":")); {
		case first == "":
			first = string(line)
		case len(line) == 0:
			return first, length, nil
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return "", 0, errors.New("a body without a length")
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return "", 0, err
			}
		}
	}
}

// serve answers each request with what the function says of its target, status
// and body, until the listener is closed.
func serve(listener net.Listener, say func(target string) (status int, body string)) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go serveConn(conn, say)
	}
}

func serveConn(conn net.Conn, say func(target string) (status int, body string)) {
	defer conn.Close()
	requests := bufio.NewReader(conn)
	var out []byte
	for {
		first, length, err := readHead(requests)
		if err != nil {
			return
		}
		if _, err := requests.Discard(length); err != nil {
			return
		}
		_, target, _ := strings.Cut(first, " ")
		target, _, _ = strings.Cut(target, " ")
		status, body := say(target)
		out = fmt.Appendf(out[:0], "HTTP/1.1 %d -\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}
