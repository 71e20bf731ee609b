// Package jwks verifies signatures by keys that are published at an HTTPS URL as a
// JSON web key set (RFC 7517). [Parse] reads such a set, or public keys in PEM, of
// a file.
//
//	keys, err := jwks.New("https://ci.example.com/keys.json", nil)
//	if err != nil {
//		return err
//	}
//	defer keys.Close()
//	payload, err := keys.Verify(ctx, token)
//
// # Which keys
//
// Ed25519 keys verify EdDSA, P-256 keys ES256, RSA keys of 2048 to 8192 bits
// RS256, and nothing else. The algorithm is the key's, whatever a token says
// (RFC 8725, section 3.1), so there is no key to confuse with another; none and
// the shared secrets of HS256 do not exist here. In a set, keys for other uses
// and other algorithms are passed over. Private keys are never accepted: they were
// not meant to be published.
//
// # How fresh they are
//
// A [Set] keeps a copy. It is renewed in the background once it is
// [Options.Refresh] old, or when a token names a key that is not in it: that is
// how a new key is found at once. A stranger who invents key names causes one
// request per [Options.MinInterval] at most, for everybody together, and
// nothing is kept of the names. (Ten, while there is no copy that counts.) While the other end is down, or hands out
// garbage, the copy goes on counting for [Options.MaxStale].
//
// To rotate without downtime, publish the new key beside the old one, sign with
// the new one, and remove the old one when its last token has expired. A key
// that is removed counts for up to twice Refresh; as long as the other end is
// down, for up to MaxStale.
//
// # What it costs
//
// One request is under way at a time, however many wait for it. It is over
// after [Options.Timeout], reads 512 KiB at most, and does not follow
// redirects: who can redirect could choose the keys. One goroutine runs while a
// request does, and Close waits for it.
package jwks

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/stagedoor/stagedoor/internal/httpclient"
)

// ErrUnavailable is wrapped by the errors of a Set that has no keys to verify
// with, or none that still count. The token may be good: another try in a
// minute can help.
var ErrUnavailable = errors.New("key set is not available")

// Options say how a Set keeps its copy. The zero value, and nil, are good for
// production.
type Options struct {
	Refresh     time.Duration // age from which a copy is renewed, MaxStale/2 at most; 0: 15 min
	MinInterval time.Duration // least time from one attempt to the next; 0: 30 s
	MaxStale    time.Duration // how long keys count that could not be renewed; 0: 24 h
	Timeout     time.Duration // of an attempt; 0: 10 s
	RootCAs     *x509.CertPool
	// AllowLoopbackHTTP lets http URLs of this machine (localhost, 127.0.0.0/8,
	// ::1) pass, for tests. Everything else is fetched by HTTPS.
	AllowLoopbackHTTP bool
	Logger            *slog.Logger     // told of attempts that fail; nil: nobody
	Now               func() time.Time // nil: time.Now
}

// withDefaults fills in what is left out.
func (o *Options) withDefaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	def := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	def(&d.Refresh, 15*time.Minute)
	def(&d.MinInterval, 30*time.Second)
	def(&d.MaxStale, 24*time.Hour)
	d.Refresh = min(d.Refresh, d.MaxStale/2) // a copy is used unasked up to twice this age
	def(&d.Timeout, 10*time.Second)
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	return d
}

// New returns the set of keys at an https URL. Nothing is read before the first
// token comes, or Renew or Refresh is called. Close it.
func New(location string, o *Options) (*Set, error) {
	opts := o.withDefaults()
	u, err := httpclient.ParseURL(location, opts.AllowLoopbackHTTP)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	at := func(context.Context) (string, error) { return location, nil }
	return newSet(plainURL(u), fetchFrom(at, opts), opts), nil
}

// NewResolved returns the set of keys at a URL that resolve finds, which is
// asked before every request, never twice at a time: for OpenID Connect
// discovery. name stands for the set in errors and logs.
func NewResolved(name string, resolve func(context.Context) (string, error), o *Options) *Set {
	opts := o.withDefaults()
	return newSet(name, fetchFrom(resolve, opts), opts)
}
