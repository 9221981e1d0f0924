package servicestest

import (
	"bytes"
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

// With returns the lines that have text in them.
func (l *LogLines) With(text string) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.all.String()) {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}
