package app

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"gatehouse/internal/config"
	"gatehouse/models"
	"gatehouse/services/ratelimit"
	"gatehouse/services/ratelimit/policyfile"
)

// policyTiers are the rate limits that gatehouse asks for, and the tiers that each
// tells apart, lowest first. Only users have a role, and so a tier.
func policyTiers() map[string][]string {
	return map[string][]string{
		"api":       {models.RoleViewer, models.RoleEditor, models.RoleAdmin},
		"anonymous": nil, "login-ip": nil, "login-account": nil,
	}
}

// policies are gatehouse's rate limits as the environment has them.
type policies struct{ api, anonymous, loginByIP, loginByAccount models.Policy }

func newPolicies(c config.Config) policies {
	policy := func(name string) models.Policy {
		return models.Policy{
			Name: name, Limit: c.RateLimitMax, Window: c.RateLimitWindow, Algorithm: c.RateLimitAlgorithm, OnRedisDown: c.RateLimitOnRedisDown, Block: int64(c.RateLimitLease),
		}
	}
	onRedisDown := c.RateLimitOnRedisDown
	if onRedisDown == models.OnRedisDownOpen { // an outage must not let an attacker guess passwords without end
		onRedisDown = models.OnRedisDownLocal
	}
	login := func(name string) models.Policy {
		return models.Policy{Name: name, Limit: c.LoginRateLimitMax, Window: c.LoginRateLimitWindow, OnRedisDown: onRedisDown}
	}
	return policies{api: policy("api"), anonymous: policy("anonymous"), loginByIP: login("login-ip"), loginByAccount: login("login-account")}
}

// watchPolicies reads RATE_LIMIT_POLICIES now, which must succeed, and again on
// every SIGHUP: if the file is wrong then, an error is logged and the policies stay. Without
// a file a SIGHUP is logged and does nothing.
func (a *app) watchPolicies(limiter *ratelimit.Limiter, own policies) error {
	path := a.config.RateLimitPolicies
	if path != "" {
		set, err := readPolicies(path)
		if err != nil {
			return fmt.Errorf("RATE_LIMIT_POLICIES=%q: %w", path, err)
		}
		limiter.Configure(set)
	}
	if err := a.logPlacement(limiter, own); err != nil {
		return err
	}
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-a.hangUps:
				a.readPoliciesAgain(path, limiter, own)
			case <-stop:
				return
			}
		}
	}()
	a.closers = append(a.closers, func(context.Context) error {
		close(stop) // and waits for nothing: a file on a network that hangs may be read just now
		return nil
	})
	return nil
}

// catchHangUps keeps a SIGHUP from ending the process, from now until all else is
// closed.
func (a *app) catchHangUps() {
	a.hangUps = make(chan os.Signal, 1)
	signal.Notify(a.hangUps, syscall.SIGHUP)
	a.closers = append(a.closers, func(context.Context) error {
		signal.Stop(a.hangUps)
		return nil
	})
}

func (a *app) readPoliciesAgain(path string, limiter *ratelimit.Limiter, own policies) {
	if path == "" {
		a.log.Info("hang-up ignored: RATE_LIMIT_POLICIES names no file to read again")
		return
	}
	set, err := readPolicies(path)
	if err != nil {
		a.log.Error("rate limit policies not read again: those in use stay", "error", err)
		return
	}
	limiter.Configure(set)
	a.log.Info("rate limit policies read again", "file", path)
	if err := a.logPlacement(limiter, own); err != nil {
		a.log.Error("rate limit policies do not fit together", "error", err)
	}
}

// logPlacement says which policies are decided together, in one script and so in
// one Cluster slot, and by which hash tag.
func (a *app) logPlacement(limiter *ratelimit.Limiter, own policies) error {
	const key, other = "key", "other"
	var byKey, byGroup []string
	for _, group := range []struct {
		name string
		hits []models.Hit
	}{
		{"api", []models.Hit{{Policy: own.api, Key: key}}},
		{"anonymous", []models.Hit{{Policy: own.anonymous, Key: key}}},
		{"login", []models.Hit{{Policy: own.loginByIP, Key: key}, {Policy: own.loginByAccount, Key: other}}},
	} {
		names, tag, err := limiter.Placement(group.name, group.hits...)
		if err != nil {
			return err
		}
		if tag == key {
			byKey = append(byKey, strings.Join(names, "+"))
		} else {
			byGroup = append(byGroup, strings.Join(names, "+")+" {"+tag+"}")
		}
	}
	a.log.Info("rate limits that are decided together are placed in one cluster slot",
		"by_common_key", strings.Join(byKey, ", "), "by_group_name", strings.Join(byGroup, ", "))
	return nil
}

// readPolicies reads a policy file as far as one may be long. It does not wait for the
// writer of a pipe.
func readPolicies(path string) (*ratelimit.PolicySet, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, cmp.Or(err, fmt.Errorf("%s: not a regular file", path))
	}
	source, err := io.ReadAll(io.LimitReader(file, policyfile.MaxSize+1))
	if err != nil {
		return nil, err
	}
	return policyfile.Parse(path, source, policyTiers())
}
