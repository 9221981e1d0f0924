package services_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// clientOf is a client of a REDIS_URL.
func clientOf(t *testing.T, url string) *redis.Client {
	t.Helper()
	option, err := rueidis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return redistest.Start(t, redis.Options{Client: option, KeyPrefix: "test:", Timeout: 3 * time.Second})
}

func TestRedisOverTLS(t *testing.T) {
	certificate, key := selfSigned(t)
	secure := servicestest.FreeAddr(t)
	_, port, _ := net.SplitHostPort(secure)
	servicestest.StartRedis(t, "--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no")
	rdb := clientOf(t, "rediss://"+secure+"?skip_verify=true")
	redistest.WaitReady(t, rdb)
	lockFor(t, lock.New(rdb, lock.Options{}), "process:1")
	// A certificate that nobody vouches for is refused, not waved through.
	if strict := clientOf(t, "rediss://"+secure); errors.Is(pingOnce(t, strict), nil) {
		t.Error("connected to a server with an unknown certificate")
	}
}

// A user that may only use gatehouse's keys and channels, and neither CONFIG nor
// CLUSTER, is enough for everything.
func TestRedisWithLeastPrivileges(t *testing.T) {
	server := servicestest.StartRedis(t)
	server.Do("ACL", "SETUSER", "app", "on", ">secret", "~test:*", "&test:*", "+@all", "-@admin", "-@dangerous")
	rdb := clientOf(t, "redis://app:secret@"+server.Addr)
	redistest.WaitReady(t, rdb)
	l := lock.New(rdb, lock.Options{})
	taken := lockFor(t, l, "process:1")
	if _, _, err := l.List(t.Context(), models.Page{Limit: 10}); err != nil {
		t.Error(err)
	}
	if _, err := l.Release(t.Context(), taken.Claim); err != nil {
		t.Error(err)
	}
	limiter := ratelimit.New(rdb, ratelimit.Options{Logger: redistest.Quiet()})
	policy := models.Policy{Name: "api", Limit: 2, Window: time.Minute}
	if decisions, err := limiter.Take(t.Context(), "api", models.Hit{Policy: policy, Key: "user:1"}); err != nil || decisions[0].Degraded {
		t.Errorf("%+v, %v", decisions, err)
	}
	wrong := clientOf(t, "redis://app:wrong@"+server.Addr)
	if err := pingOnce(t, wrong); !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("wrong password: %v", err)
	}
}

// selfSigned writes a certificate for 127.0.0.1 and its key.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "EC PRIVATE KEY", secret)
}
