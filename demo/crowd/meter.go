package crowd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// meterEvery is how often Passerelle's metrics are read.
const meterEvery = time.Second

// meter adds up what Passerelle's processes say of themselves, one after the
// other: their counters begin at zero.
type meter struct {
	address string
	client  *http.Client

	mu sync.Mutex
	// total is what earlier processes counted, now what the present one did at
	// the last look.
	total, now sample
	at         time.Time
	// fastest is how many leaves were put off in a second, at best; queued how
	// many calls waited for their turn, at worst.
	fastest, queued float64
}

// sample is what is read at one time.
type sample struct {
	// actions are calls to the homeserver, by action and outcome; late are how
	// many came later than some seconds, by action and seconds.
	actions, late map[string]float64
	jobs          float64
}

func newMeter(address string) *meter {
	return &meter{
		address: address, client: &http.Client{Timeout: 5 * time.Second},
		total: emptySample(), now: emptySample(),
	}
}

func emptySample() sample { return sample{actions: map[string]float64{}, late: map[string]float64{}} }

// follow reads until ctx is done.
func (m *meter) follow(ctx context.Context) {
	defer m.client.CloseIdleConnections()
	ticker := time.NewTicker(meterEvery)
	defer ticker.Stop()
	for {
		m.read(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// read reads once. While Passerelle is away there is nothing.
func (m *meter) read(ctx context.Context) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.address, nil)
	if err != nil {
		return
	}
	answer, err := m.client.Do(request)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	s, queued, err := parse(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return
	}
	m.note(s, queued, time.Now())
}

// note takes in what was read.
func (m *meter) note(s sample, queued float64, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	const restarted = "restart done"
	more := s.actions[restarted] - m.now.actions[restarted]
	if more < 0 || sum(s.actions) < sum(m.now.actions) {
		m.total = m.sum() // another process
	} else if took := at.Sub(m.at); took > meterEvery/2 {
		m.fastest = max(m.fastest, more/took.Seconds())
	}
	m.now, m.at = s, at
	m.queued = max(m.queued, queued)
}

// parse reads the text format of metrics, as far as it is of interest here.
func parse(from io.Reader) (s sample, queued float64, err error) {
	s = emptySample()
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		name, labels, _ := strings.Cut(name, "{")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue // a comment
		}
		switch name {
		case "passerelle_leave_actions_total":
			s.actions[label(labels, "action")+" "+label(labels, "outcome")] = n
		case "passerelle_leave_lateness_seconds_bucket":
			s.late[label(labels, "action")+" "+label(labels, "le")] = n
		case "passerelle_leave_jobs":
			s.jobs += n
		case "passerelle_leave_queued":
			queued = n
		}
	}
	return s, queued, lines.Err()
}

func label(labels, name string) string {
	_, rest, _ := strings.Cut(","+labels, ","+name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

func sum(counts map[string]float64) (n float64) {
	for _, count := range counts {
		n += count
	}
	return n
}

// sum is what all processes counted together.
func (m *meter) sum() sample {
	both := sample{actions: maps.Clone(m.total.actions), late: maps.Clone(m.total.late), jobs: m.now.jobs}
	for what, n := range m.now.actions {
		both.actions[what] += n
	}
	for what, n := range m.now.late {
		both.late[what] += n
	}
	return both
}

// leaves is how many Passerelle looks after.
func (m *meter) leaves() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int(m.now.jobs)
}

// String is a line of it for people.
func (m *meter) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("%.0f times put off", m.sum().actions["restart done"])
}

// within says for an action how many were in time, by how late: bounds in
// seconds, and the count of those no later.
func (s sample) within(action string) (rows []string) {
	bounds := map[float64]float64{}
	for key, n := range s.late {
		if le, ok := strings.CutPrefix(key, action+" "); ok {
			if bound, err := strconv.ParseFloat(le, 64); err == nil {
				bounds[bound] = n
			}
		}
	}
	before := 0.0
	for _, bound := range slices.Sorted(maps.Keys(bounds)) {
		if n := bounds[bound] - before; n > 0 {
			rows = append(rows, fmt.Sprintf("≤ %g s: %.0f", bound, n))
		}
		before = bounds[bound]
	}
	return rows
}
