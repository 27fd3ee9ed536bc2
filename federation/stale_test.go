package federation

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// outside is what a look-up sees: the answer to the question for the document, or
// none, and the SRV records of all names. A nil list is a name server that fails.
type outside struct {
	status  int // 0: the web server does not answer
	body    string
	records []net.SRV
}

var (
	down      = outside{}
	noRecords = []net.SRV{}
)

func (o *outside) RoundTrip(r *http.Request) (*http.Response, error) {
	if o.status == 0 {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: o.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(o.body)), Request: r}, nil
}

// dial connects to a name server that answers one question.
func (o *outside) dial(context.Context, string, string) (net.Conn, error) {
	if o.records == nil {
		return nil, errors.New("the name server is down")
	}
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		var size [2]byte
		if _, err := io.ReadFull(theirs, size[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(theirs, question); err != nil {
			return
		}
		reply, err := o.reply(question)
		if err == nil {
			_, _ = theirs.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
		}
	}()
	return ours, nil
}

func (o *outside) reply(question []byte) ([]byte, error) {
	var message dnsmessage.Message
	if err := message.Unpack(question); err != nil {
		return nil, err
	}
	message.Header.Response, message.Additionals = true, nil
	if len(o.records) == 0 {
		message.Header.RCode = dnsmessage.RCodeNameError
	}
	for _, r := range o.records {
		message.Answers = append(message.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: message.Questions[0].Name, Type: dnsmessage.TypeSRV, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.SRVResource{Target: dnsmessage.MustNewName(r.Target), Port: r.Port},
		})
	}
	return message.Pack()
}

// TestAKnownPlaceOutlivesWhatLedThere: where looking for a server again fails, or
// finds another place only because something does not answer, it stays where it was.
// What is known to have changed counts at once.
func TestAKnownPlaceOutlivesWhatLedThere(t *testing.T) {
	const own, matrix, far = "a.example:8448", "matrix.a.example:8448", "far.example:1"
	delegated := outside{200, `{"m.server":"matrix.a.example"}`, noRecords}
	ported := outside{200, `{"m.server":"matrix.a.example:8448"}`, nil}
	records := []net.SRV{{Target: "far.example.", Port: 1}}
	moved := []net.SRV{{Target: "moved.example.", Port: 2}}
	for name, c := range map[string]struct {
		before, after outside
		was, is       string
		kept          bool // although something else was found
	}{
		"nothing answers":                 {ported, down, matrix, matrix, true},
		"no web server":                   {delegated, outside{0, "", noRecords}, matrix, matrix, true},
		"no web server, and records":      {delegated, outside{0, "", moved}, matrix, matrix, true},
		"a web server being repaired":     {ported, outside{503, "", noRecords}, matrix, matrix, true},
		"with a page for it":              {ported, outside{200, "<html>", noRecords}, matrix, matrix, true},
		"too many questions":              {ported, outside{429, "{}", noRecords}, matrix, matrix, true},
		"a document that ends too soon":   {ported, outside{200, `{"m.server":"mat`, noRecords}, matrix, matrix, true},
		"a document that does not end":    {ported, outside{200, strings.Repeat(" ", 1<<20) + "{}", noRecords}, matrix, matrix, true},
		"records that cannot be had":      {outside{404, "", records}, outside{404, "", nil}, far, far, true},
		"of the place the document names": {outside{200, delegated.body, records}, outside{200, delegated.body, nil}, far, far, true},
		"no document any more":            {ported, outside{404, "", noRecords}, matrix, own, false},
		"for good":                        {ported, outside{410, "", nil}, matrix, own, false},
		"none, and records":               {ported, outside{404, "", records}, matrix, far, false},
		"a document that names nothing":   {ported, outside{200, "{}", noRecords}, matrix, own, false},
		"another document":                {ported, outside{200, `{"m.server":"far.example:1"}`, nil}, matrix, far, false},
		"another, and no records":         {outside{200, delegated.body, records}, outside{200, `{"m.server":"b.example"}`, nil}, far, "b.example:8448", false},
		"no records any more":             {outside{404, "", records}, outside{404, "", noRecords}, far, own, false},
		"other records, no web server":    {outside{0, "", records}, outside{0, "", moved}, far, "moved.example:2", false},
		"never a web server":              {outside{0, "", noRecords}, outside{0, "", noRecords}, own, own, false},
	} {
		t.Run(name, func(t *testing.T) {
			now := c.before
			r := &resolver{wellKnown: &http.Client{Transport: &now}, dns: &net.Resolver{PreferGo: true, Dial: now.dial}}
			h := newHome("a.example")
			first := find(t, &h, r)
			require.Equal(t, []string{c.was}, first.addresses)

			now, h.until = c.after, time.Now()
			found := find(t, &h, r)
			require.Equal(t, []string{c.is}, found.addresses)
			if !c.kept {
				return
			}
			require.Same(t, first, found, "with its connections")
			require.Less(t, time.Until(h.until), plainFor+time.Second, "it is looked for again soon")

			h.doubt(first, r)
			h.until = time.Now()
			require.Equal(t, []string{c.was}, find(t, &h, r).addresses, "also when it did not answer just now")

			h.goodAt, h.until = time.Now().Add(-staleFor), time.Now()
			if found, err := h.find(t.Context(), r); err == nil {
				require.NotEqual(t, []string{c.was}, found.addresses, "and not for ever")
			}
		})
	}
}

// TestALookUpLeavesTimeToAsk: one that takes long does not keep a server that is
// known from being asked.
func TestALookUpLeavesTimeToAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &resolver{wellKnown: &http.Client{Transport: hanging{}}}
		h := newHome("a.example")
		known := r.place("matrix.a.example:443", []string{"192.0.2.1:443"}, false)
		h.place, h.goodAt = known, time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		found, err := h.find(ctx, r)
		require.NoError(t, err)
		require.Same(t, known, found)
		deadline, _ := ctx.Deadline()
		require.Equal(t, time.Second, time.Until(deadline))
	})
}

type hanging struct{}

func (hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}
