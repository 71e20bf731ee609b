package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway"
)

// parseNetwork reads a network, or an address, which is one of its own.
func parseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errors.New("it is no network; write 192.0.2.0/24 or 2001:db8::/32")
	}
	if p.Addr().Is4In6() {
		return p, errors.New("write an IPv4 network as 192.0.2.0/24")
	}
	if p != p.Masked() {
		return p, errors.New("an address with a length; the network is " + p.Masked().String())
	}
	return p, nil
}

// networks reads a list that was validated.
func networks(list []string) []netip.Prefix {
	all := []netip.Prefix{}
	for _, s := range list {
		if p, err := parseNetwork(s); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// validateSources refuses networks that are none, and to believe everybody.
func (c *Config) validateSources(r *report) {
	for _, list := range []struct {
		key   string
		items []string
	}{{"limits.penalties.exempt", c.Limits.Penalties.Exempt}, {proxyFrom, c.ProxyProtocol.From}} {
		for i, item := range list.items {
			p, err := parseNetwork(item)
			switch {
			case err != nil:
				r.addItem(list.key, i, "%q: %v", item, err)
			case p.Bits() == 0 && list.key == proxyFrom:
				r.addItem(list.key, i, "%q: anybody could pretend to come from anywhere; name the load balancers alone", item)
			}
		}
	}
}

// authorities are those whose user certificates open tasks.
func (c *Config) authorities(r *report) (all []auth.Authorizer) {
	for i, one := range c.Guests.Authorities {
		made, err := one.load()
		if err != nil {
			r.addItem("guests.authorities", i, "%v", err)
			continue
		}
		all = append(all, made)
	}
	return all
}

func (a Authority) load() (*auth.Authority, error) {
	made := &auth.Authority{Name: "certificates by " + strings.Join(a.Keys, ", "), Tasks: a.Tasks}
	if len(a.Keys) == 0 {
		return nil, errors.New("keys is missing: name the files with the public keys that sign certificates")
	}
	for _, file := range a.Keys {
		data, err := readUnwritable(file)
		var keys []ssh.PublicKey
		if err == nil {
			keys, err = auth.ParseAuthorities(file, data)
		}
		if err != nil {
			return nil, errors.New(fileError(file, err))
		}
		made.Keys = append(made.Keys, keys...)
	}
	return made, a.checkTasks()
}

func (a Authority) checkTasks() error {
	if a.Tasks != nil && len(a.Tasks) == 0 {
		return errors.New("tasks is empty, and would let nobody in: name principals and their tasks, or leave it out")
	}
	for _, principal := range slices.Sorted(maps.Keys(a.Tasks)) {
		switch {
		case principal == "" || strings.Contains(principal, "*"):
			return fmt.Errorf("tasks: %q is no principal: write it as it is in certificates; * is for tasks alone", principal)
		case len(a.Tasks[principal]) == 0:
			return fmt.Errorf("tasks: %q opens no task: list some, or [\"*\"] for all", principal)
		}
		for _, pattern := range a.Tasks[principal] {
			if err := auth.CheckTaskPattern(pattern); err != nil {
				return fmt.Errorf("tasks: %q: %w", principal, err)
			}
		}
	}
	return nil
}

// revoked reads the lists of revoked keys.
func (c *Config) revoked(r *report, log *slog.Logger) *auth.RevokedFiles {
	files, err := auth.OpenRevokedFiles(log, c.Guests.RevokedKeys...)
	if err == nil {
		return files
	}
	for i, file := range c.Guests.RevokedKeys {
		if _, err := auth.OpenRevokedFiles(log, file); err != nil {
			r.addItem("guests.revoked_keys", i, "%s", fileError(file, err))
		}
	}
	r.add("guests.revoked_keys", "%v", err) // unless it can be read by now
	return nil
}

// penalties never charges a load balancer for those who come through it.
func (c *Config) penalties() gateway.Penalties {
	p := c.Limits.Penalties
	return gateway.Penalties{
		Refused:   orNothing(p.Refused),
		NoSignIn:  orNothing(p.NoSignIn),
		Timeout:   orNothing(p.Timeout),
		Crash:     orNothing(p.Crash),
		Threshold: p.Threshold,
		Max:       orNothing(p.Max),
		Exempt:    append(networks(p.Exempt), networks(c.ProxyProtocol.From)...),
	}
}

// orNothing makes zero what it is here; in the gateway package it is the default.
func orNothing(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}
