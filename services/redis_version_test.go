package services

import (
	"testing"

	"gatehouse/services/servicestest"
)

// An old server is named at the start: its scripts would only fail one by one.
func TestRedisVersion(t *testing.T) {
	for info, old := range map[string]bool{
		"# Server\r\nredis_version:6.2.14\r\nredis_git_sha1:0": true,
		"redis_version:7.0.0\r\n":                              false,
		"redis_version:10.1":                                   false,
		"# Server\r\nsomething_version:5":                      false,
		"":                                                     false,
	} {
		if version := serverVersion(info); tooOld(version) != old {
			t.Errorf("%q: version %q counts as old: %v", info, version, !old)
		}
	}
	server := servicestest.StartRedis(t)
	if version := serverVersion(server.Do("INFO", "server")); version == "" || tooOld(version) {
		t.Errorf("this server's version is read as %q", version)
	}
}
