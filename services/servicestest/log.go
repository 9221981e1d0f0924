package servicestest

import (
	"bytes"
	"slices"
	"strings"
	"sync"
)

// LogLines is a log that a test reads while it is written.
type LogLines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *LogLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(line)
}

// Reset forgets what was logged.
func (l *LogLines) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Reset()
}

func (l *LogLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// With returns the lines that have all parts in them.
func (l *LogLines) With(parts ...string) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.all.String()) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			lines = append(lines, line)
		}
	}
	return lines
}
