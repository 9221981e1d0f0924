package servicestest

import (
	"bytes"
	"slices"
	"strings"
	"sync"
)

// LogLines is a log, or the output of a process, that a test reads while it is written.
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
	for line := range strings.Lines(l.String()) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			lines = append(lines, line)
		}
	}
	return lines
}

// Last returns the last n lines, for the log of a test that failed.
func (l *LogLines) Last(n int) string {
	lines := strings.SplitAfter(l.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-n-1):], "")
}
