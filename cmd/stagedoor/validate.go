package main

import (
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/cmd/internal/logs"
	"github.com/stagedoor/stagedoor/tunnel"
)

// mayBeZero are the numbers and durations for which nothing is something.
var mayBeZero = []string{"limits.session_time", "guests.sign_in.remember_for",
	"limits.penalties.refused", "limits.penalties.no_sign_in", "limits.penalties.timeout", "limits.penalties.crash", "limits.penalties.max",
	"drain.lame_duck", "drain.deadline"}

// validate reports what is wrong with the values alone. What is wrong with the
// files that they name shows when the settings are made.
func (c *Config) validate(r *report) {
	c.validateNames(r)
	c.validateListeners(r)
	c.validateCertificate(r)
	c.validateNumbers(r)
	c.validateLists(r)
	c.validateSources(r)
	if _, err := logs.ParseLevel(c.Log.Level); err != nil {
		r.add("log.level", "%v", err)
	}
	if !slices.Contains(logs.Formats, c.Log.Format) {
		r.add("log.format", "unknown log format %q; use one of %s", c.Log.Format, strings.Join(logs.Formats, ", "))
	}
}

func (c *Config) validateLists(r *report) {
	permission := func(name string) error {
		_, err := parsePermission(name)
		return err
	}
	for _, list := range []struct {
		key   string
		items []string
		check func(string) error
	}{
		{"ssh.extra_algorithms", c.SSH.ExtraAlgorithms, auth.CheckAlgorithm},
		{"guests.permissions", c.Guests.Permissions, permission},
		{"guests.permit_open", c.Guests.PermitOpen, auth.CheckPermitOpen},
		{"guests.permit_listen", c.Guests.PermitListen, auth.CheckPermitListen},
	} {
		for i, item := range list.items {
			if err := list.check(item); err != nil {
				r.addItem(list.key, i, "%v", err)
			}
		}
	}
	for _, list := range []struct {
		key   string
		grant auth.Grant
	}{
		{"guests.permit_open", auth.Grant{PermitOpen: c.Guests.PermitOpen}},
		{"guests.permit_listen", auth.Grant{PermitListen: c.Guests.PermitListen}},
	} {
		if err := list.grant.Check(); err != nil && !r.wrong[list.key] { // each entry is good: there are too many
			r.add(list.key, "%v", err)
		}
	}
}

func (c *Config) validateNames(r *report) {
	c.Domain = strings.ToLower(strings.TrimSuffix(c.Domain, "."))
	if c.Domain != "" {
		if _, _, err := tunnel.ParseAddress(net.JoinHostPort(c.Domain, "443")); err != nil {
			r.add("domain", "%q is not a domain name; write it without scheme and port, as in terminal.example.com", c.Domain)
		}
	}
	if c.StateDir == "" {
		_, err := defaultStateDir()
		r.add("state_dir", "%v", err)
	}
	if c.Hosts.Audience == "" {
		r.add("hosts.audience", "it is empty, and every token would do; the default is stagedoor")
	}
	if c.HTTPS.Address != "" {
		if _, _, err := tunnel.ParseAddress(c.HTTPS.Address); err != nil {
			r.add("https.address", "%q: %v; write it as agents reach it, as in terminal.example.com:443", c.HTTPS.Address, err)
		}
	}
	if c.SSH.Address != "" {
		if _, _, err := tunnel.ParseAddress(c.SSH.Address); err != nil {
			r.add("ssh.address", "%q: %v; write it as guests reach it, as in terminal.example.com:22", c.SSH.Address, err)
		}
	} else if c.Domain == "" && c.HTTPS.Certificate != "" {
		r.addMissing("ssh.address", "nobody can tell what guests have to type; set domain, or ssh.address to host:port")
	}
}

func (c *Config) validateListeners(r *report) {
	for _, l := range []struct {
		key, value string
		mayBeOff   bool
	}{{"ssh.listen", c.SSH.Listen, true}, {"https.listen", c.HTTPS.Listen, false}, {"private.listen", c.Private.Listen, true}} {
		if off(l.value) {
			if !l.mayBeOff {
				r.add(l.key, "it cannot be off: agents connect there")
			}
			continue
		}
		if err := checkListen(l.value); err != "" {
			r.add(l.key, "%q: %s", l.value, err)
		}
	}
	if host, _, err := net.SplitHostPort(c.Private.Listen); err == nil && !isLoopback(host) {
		r.warnItem("private.listen", 0, "everybody who reaches "+c.Private.Listen+" can read the metrics: keep a firewall before it")
	}
}

func checkListen(s string) string {
	const example = "write :22 or 192.0.2.1:22"
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		if _, err := strconv.ParseUint(s, 10, 16); err == nil {
			return "a port needs a colon before it: write :" + s
		}
		return "it is not an address with a port; " + example
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "the port is not a number from 0 to 65535; " + example
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && host != "localhost" {
		return "listen on an IP address of this machine, or on all with none before the colon; " + example
	}
	return ""
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (c *Config) validateCertificate(r *report) {
	switch {
	case c.HTTPS.Certificate != "" && c.HTTPS.Key == "":
		r.add("https.key", "the certificate needs its private key: set https.key to its file")
	case c.HTTPS.Certificate == "" && c.HTTPS.Key != "":
		r.add("https.certificate", "the key needs its certificate: set https.certificate to its file")
	case c.HTTPS.Certificate != "":
	case c.Domain == "":
		r.addMissing("domain", "there is neither a domain nor a certificate: set domain (--domain terminal.example.com) and the certificate is fetched by ACME, or set https.certificate and https.key to files")
	default:
		c.validateACME(r)
	}
}

func (c *Config) validateACME(r *report) {
	if _, err := netip.ParseAddr(c.Domain); err == nil || !strings.Contains(c.Domain, ".") {
		r.add("domain", "no certificate can be fetched for %q: use a public domain name, or set https.certificate and https.key", c.Domain)
	}
	if u, err := url.Parse(c.HTTPS.ACME.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		r.add("https.acme.directory", "%q is not an https URL", c.HTTPS.ACME.Directory)
	}
	if email := c.HTTPS.ACME.Email; email != "" && (!strings.Contains(email, "@") || strings.ContainsAny(email, " \t\r\n<>:")) {
		r.add("https.acme.email", "%q is not a mail address", email)
	}
}

// validateNumbers refuses what is negative, and zero where it would mean that
// nobody gets in.
func (c *Config) validateNumbers(r *report) {
	for _, f := range fields(c) {
		if !f.Value.CanInt() {
			continue
		}
		switch n := f.Value.Int(); {
		case n < 0:
			r.add(f.Key, "%v is negative", f.Value.Interface())
		case n == 0 && !slices.Contains(mayBeZero, f.Key):
			r.add(f.Key, "it must be more than %v", zero(f.Value.Type()))
		}
	}
}

func zero(t reflect.Type) any {
	if t == reflect.TypeFor[time.Duration]() {
		return "0s"
	}
	return 0
}
