package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"gatehouse/models"
	"gatehouse/services"
)

// policyNames are the rate limits that gatehouse asks for.
func policyNames() []string { return []string{"api", "anonymous", "login-ip", "login-account"} }

// leased is the policy with admissions taken in blocks of at most units.
func leased(p models.Policy, units int64) models.Policy {
	p.Lease = units
	return p
}

// watchPolicies reads RATE_LIMIT_POLICIES now, which must succeed, and again on
// every SIGHUP: a file that is wrong then is told, and the policies stay.
func (a *app) watchPolicies(limiter *services.RateLimiter) error {
	path := a.config.RateLimitPolicies
	if path == "" {
		return nil
	}
	set, err := readPolicies(path)
	if err != nil {
		return fmt.Errorf("RATE_LIMIT_POLICIES=%q: %w", path, err)
	}
	limiter.Configure(set)
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hangUps {
			set, err := readPolicies(path)
			if err != nil {
				a.log.Error("rate limit policies not read again: those in use stay", "error", err)
				continue
			}
			limiter.Configure(set)
			a.log.Info("rate limit policies read again", "file", path)
		}
	}()
	a.closers = append(a.closers, func(context.Context) error {
		signal.Stop(hangUps)
		close(hangUps)
		<-done
		return nil
	})
	return nil
}

func readPolicies(path string) (*services.PolicySet, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return services.ParsePolicies(path, source, policyNames()...)
}
