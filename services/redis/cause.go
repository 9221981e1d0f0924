package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/redis/rueidis"
)

// causeOf says why a probe failed that waited for an answer as long as patience.
func causeOf(err error, timeout, patience time.Duration) cause {
	var lacks *lackError
	var reply *rueidis.RedisError
	switch {
	case errors.As(err, &lacks):
		return causeOfReply(lacks.reply, lacks.command, err)
	case errors.As(err, &reply):
		return causeOfReply(reply.Error(), "", err)
	case errors.Is(err, errHandshake) && isTimeout(err):
		return cause{NodeTimeout, "no answer to the TLS handshake: is it frozen, or does it not speak TLS?", err}
	case isTLS(err):
		return cause{NodeTLS, "TLS fails: the certificate is not trusted, or only one side wants TLS", err}
	case errors.Is(err, syscall.ECONNREFUSED):
		return cause{NodeGone, "the connection is refused: nothing listens there", err}
	case isTimeout(err):
		return cause{NodeTimeout, fmt.Sprintf("no answer within %v (REDIS_TIMEOUT is %v)", patience, timeout), err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return cause{NodeGone, "the connection is closed at once: does it want TLS?", err}
	case errors.As(err, new(*net.DNSError)):
		return cause{NodeGone, "its name is not found", err}
	}
	return cause{NodeGone, "it cannot be reached", err}
}

func isTLS(err error) bool {
	return errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(tls.RecordHeaderError)) || errors.As(err, new(tls.AlertError)) ||
		errors.As(err, new(x509.UnknownAuthorityError)) || errors.As(err, new(x509.HostnameError)) || strings.Contains(err.Error(), "tls: ")
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || (errors.As(err, &network) && network.Timeout())
}

// lackError is a command that the probe's script could not run, with Redis's reply.
type lackError struct{ command, reply string }

func (e *lackError) Error() string { return e.command + ": " + e.reply }

// isElsewhere reports whether an error reply says only that a slot is on its way to another
// node.
func isElsewhere(reply string) bool { return causeOfReply(reply, "", nil).reason == moving }

// isUnavailable reports whether an error reply is about the state of Redis, not about the command.
func isUnavailable(reply string) bool { return causeOfReply(reply, "", nil).reason != unknownReply }

// causeOfPrefix knows the replies about the state of Redis by their first word.
func causeOfPrefix(reply string) (cause, bool) {
	for _, known := range [...]struct {
		prefix string
		state  NodeState
		reason string
	}{
		{"LOADING", NodeNotNow, "it is loading its data"},
		{"OOM", NodeNotNow, "its memory is full (maxmemory)"},
		{"READONLY", NodeNotNow, "it is a read-only replica"},
		{"BUSY", NodeNotNow, "a script runs for too long there"},
		{"CLUSTERDOWN", NodeNotNow, "the Cluster is down: slots are missing, or their master"},
		{"MASTERDOWN", NodeNotNow, "it is a replica without its master"},
		{"MISCONF", NodeNotNow, "it cannot save its data and takes no writes (MISCONF)"},
		{"NOREPLICAS", NodeNotNow, "it has too few replicas to take writes"},
		{"TRYAGAIN", NodeNotNow, moving},
		{"MOVED", NodeNotNow, moving},
		{"ASK", NodeNotNow, moving},
		{"max number of clients", NodeNotNow, "it has too many clients (maxclients)"},
		{"NOAUTH", NodePassword, "it wants a password"},
		{"WRONGPASS", NodePassword, "the user name or the password is wrong"},
		{"invalid password", NodePassword, "the password is wrong"},
		{"AUTH", NodePassword, "it takes no password, or no user name"},
		{"Client sent AUTH", NodePassword, "it takes no password"},
		{"No such master", NodeNoMaster, "the Sentinel knows no such master"},
	} {
		if strings.HasPrefix(reply, known.prefix) {
			return cause{state: known.state, reason: known.reason}, true
		}
	}
	return cause{}, false
}

const (
	unknownReply = "it answers with an error"
	moving       = "slots are on their way to another node"
)

var (
	commandNamed = regexp.MustCompile(`'([A-Za-z]+)(?:\|[A-Za-z]+)?'`)
	noPermission = regexp.MustCompile(`(?i)^NOPERM|no permission|can't run this command|can't access at least one of the keys|can't publish to the channel|ACL failure`)
	noCommand    = regexp.MustCompile(`(?i)unknown (redis )?command`)
	noEngine     = regexp.MustCompile(`(?i)scripting engine|lua.*not (available|loaded|found)`)
)

// causeOfReply says what an error reply to a command means. An empty command is taken from the
// reply, if that names it.
func causeOfReply(reply, command string, detail error) cause {
	reply = strings.TrimPrefix(reply, "ERR ") // as rueidis does
	if command == "" {
		if named := commandNamed.FindStringSubmatch(reply); named != nil {
			command = strings.ToUpper(named[1])
		}
	}
	if why, known := causeOfPrefix(reply); known {
		why.detail = detail
		return why
	}
	switch script := command == "EVAL" || command == "EVALSHA"; {
	case noPermission.MatchString(reply) && strings.Contains(reply, " key"):
		return cause{NodePermission, "its user has no permission for the keys: ACL SETUSER ... ~PREFIX*, with REDIS_KEY_PREFIX", detail}
	case noPermission.MatchString(reply) && strings.Contains(reply, "channel"):
		return cause{NodePermission, "its user has no permission for the channels: ACL SETUSER ... &PREFIX*, with REDIS_KEY_PREFIX", detail}
	case noPermission.MatchString(reply):
		return cause{NodePermission, strings.TrimSpace(fmt.Sprintf("its user has no permission for %s: ACL SETUSER ... +%s", command, strings.ToLower(command))), detail}
	case noEngine.MatchString(reply), noCommand.MatchString(reply) && script:
		return cause{NodeIncapable, "it runs no scripts: EVAL or EVALSHA is renamed away, or the module for Lua is not loaded", detail}
	case noCommand.MatchString(reply):
		return cause{NodeIncapable, "it has no command " + command + ": is it renamed away?", detail}
	}
	return cause{NodeIncapable, unknownReply, detail}
}
