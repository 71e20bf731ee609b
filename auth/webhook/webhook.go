// Package webhook lets another system decide who may enter a task: an HTTP
// endpoint of the operator's CI, say, that knows who started which job.
//
// A [Webhook] is an [auth.Authorizer]. For a guest it sends
//
//	POST /stagedoor HTTP/1.1
//	Content-Type: application/json
//	Webhook-Id: msg_EXAMPLE
//	Webhook-Timestamp: 1772366400
//	Webhook-Signature: v1,erQg3KJ4bSuMMSTgcD7oPB9sE9ORybwidimu95YeYCs=
//
//	{
//	  "type": "guest.authorize",
//	  "timestamp": "2026-03-01T12:00:00Z",
//	  "data": {
//	    "version": 1,
//	    "request_id": "msg_EXAMPLE",
//	    "task": "task-1234",
//	    "method": "publickey",
//	    "remote_address": "192.0.2.7",
//	    "key": {
//	      "type": "ssh-ed25519",
//	      "fingerprint": "SHA256:hjQyYd0cLbF92CSIb6div0shUQl0EOIDaK1N8xcgIP8",
//	      "authorized_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIMgpRl32MOMqKSSfGcN9YIeRJdhlF4V6e+yahUJ0jDq"
//	    },
//	    "certificate": {
//	      "key_id": "alice@example.com",
//	      "serial": 7,
//	      "principals": ["alice"],
//	      "authority": "SHA256:Lh3dROe7Nd1LdqHkUIaKfHPHm9H6u0lNtGPoa4Cc1+w",
//	      "valid_after": 1772362800,
//	      "valid_before": 1772370000
//	    }
//	  }
//	}
//
// with the body in one line, here signed with the secret
// whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=. It expects, with status 200
// and the content type application/json:
//
//	{
//	  "allow": true,
//	  "name": "alice",
//	  "permissions": ["permit-pty", "permit-exec@stagedoor", "permit-port-forwarding"],
//	  "permit_open": ["localhost:5432"],
//	  "permit_listen": [],
//	  "force_command": "./debug",
//	  "until": 1772370000,
//	  "reason": "on call this week",
//	  "cache_for": 60
//	}
//
// # The question
//
// The headers are those of Standard Webhooks 1.0.0
// (https://github.com/standard-webhooks/standard-webhooks), so that its libraries
// can check the signature: HMAC-SHA256 over id, timestamp and body. Check it, and
// that the timestamp is of these minutes, before anything else; [Verify] does it
// in Go. While secrets are being changed there is one signature for each,
// separated by spaces.
//
// What stands in the members of data:
//
//   - version: 1. Members may be added to it; a change of what those here mean
//     gets another number.
//   - request_id: as in the header.
//   - task: what the guest wants to enter. That it was asked for is all that this
//     says: strangers may ask for any name, and whether there is a host is not
//     told. Answer by what the CI knows of the task.
//   - host: only with Config.TellHost; whether a host is registered whose token
//     has a grant.
//   - method: how the guest signs in, as SSH names it: publickey, …
//   - name: who it is, where the method tells; absent otherwise.
//   - remote_address: where from; absent when that is not known.
//   - key: the guest's public key, also when it came in a certificate; absent for
//     methods without one. That the guest has the private half may not be proved
//     yet: SSH asks what a key would be good for before it has it proved.
//   - certificate: only when the key came in a certificate that Config.Authorities
//     signed and that is in force. Others are refused without a question. Which
//     principals may enter which task is for the webhook to say. Times are in
//     seconds since 1970; valid_before is absent for one that never ends.
//
// # The answer
//
// Only allow is required. Anything that is not expected refuses: another status,
// a redirect, another content type, a member that is not listed here or comes
// twice, null, more than 64 KiB, no answer within Config.Timeout. There is no
// second attempt.
//
//   - allow: whether the guest may enter.
//   - name: what the guest is called in logs and to the host, up to 128 printable
//     characters. Absent: the certificate's key ID, or the key's fingerprint.
//   - permissions, permit_open, permit_listen: as in a grant, see [auth.Grant]:
//     absent permissions are [auth.DefaultPermissions], an empty list is none. A
//     certificate narrows them further.
//   - force_command: what runs in place of what the guest asks for.
//   - until: no sign-in by this answer at or after that time, in seconds since
//     1970. Sessions that run by then go on: permissions end at sign-in only.
//   - reason: for the gateway's log, up to 256 characters. Guests never see it.
//   - cache_for: for how many seconds the answer holds for the same question, but
//     for time and request_id. At most Config.CacheFor, and Config.NegativeFor for
//     a refusal. Absent: 5 seconds, as one sign-in asks twice. 0: not at all.
package webhook

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/httpclient"
)

// ErrUnavailable is what errors wrap when the webhook gave no answer that counts.
// Refusals wrap auth.ErrDenied instead. Neither admits anybody.
var ErrUnavailable = errors.New("the webhook cannot be asked")

// A Config says whom to ask and how. URL and Secrets are required.
type Config struct {
	URL string // https://…; it never appears in errors
	// Secrets sign what is asked: the first, and those that it is going to replace
	// or has just replaced.
	Secrets []Secret

	// Authorities are the keys of those whose user certificates are told to the
	// webhook. Without any, guests with certificates are refused.
	Authorities []ssh.PublicKey
	// TellHost has the webhook told whether a host is registered.
	TellHost bool

	Timeout       time.Duration // for a question and its answer, with the wait for a place; 0: 5 s
	CacheFor      time.Duration // the longest that cache_for may ask for; 0: 5 min
	NegativeFor   time.Duration // the same for refusals; 0: 5 s
	MaxEntries    int           // answers to remember, of some hundred bytes to 64 KiB each; 0: 4096
	MaxConcurrent int           // questions under way at once; 0: 16. Four times as many guests wait, others are refused
	PerMinute     int           // questions within a minute, others are refused; 0: 1200. Strangers can use them up

	RootCAs   *x509.CertPool // who vouches for the webhook; nil: whom the system trusts
	AllowHTTP bool           // http:// for loopback addresses, for tests
	Log       *slog.Logger   // where the reasons of those that are let in go; nil: nowhere
	Now       func() time.Time
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.Timeout, 5 * time.Second}, {&c.CacheFor, 5 * time.Minute}, {&c.NegativeFor, 5 * time.Second}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if c.MaxEntries <= 0 {
		c.MaxEntries = 4096
	}
	if c.MaxConcurrent <= 0 {
		c.MaxConcurrent = 16
	}
	if c.PerMinute <= 0 {
		c.PerMinute = 1200
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// A Webhook is an [auth.Authorizer] that asks. It may be used by many goroutines
// at once; it has none of its own. Make it with [New].
type Webhook struct {
	config      Config
	url         *url.URL
	client      *http.Client
	authorities *auth.AuthorizedKeys
	newID       func() string
	cache       *cache

	slots   chan struct{}
	waiting atomic.Int64
	budget  budget
}

// New checks the configuration. Close the Webhook when it is not used any more.
func New(c Config) (*Webhook, error) {
	w := &Webhook{config: c.withDefaults(), newID: func() string { return "msg_" + rand.Text() }}
	var err error
	if w.url, err = httpclient.ParseURL(c.URL, c.AllowHTTP); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	if len(c.Secrets) == 0 {
		return nil, errors.New("webhook: there is no secret to sign questions with: make one with ParseSecret")
	}
	for _, s := range c.Secrets {
		if len(s.key) == 0 {
			return nil, errors.New("webhook: a secret is empty: make it with ParseSecret")
		}
	}
	if w.authorities, err = parseAuthorities(c.Authorities, w.config.Now); err != nil {
		return nil, fmt.Errorf("webhook: authorities: %w", err)
	}
	w.client = httpclient.New(httpclient.Options{RootCAs: c.RootCAs, MaxBody: maxBody, Idle: 4, LoopbackHTTP: c.AllowHTTP})
	w.cache = newCache(w.config.MaxEntries)
	w.budget.perMinute = float64(w.config.PerMinute)
	w.slots = make(chan struct{}, w.config.MaxConcurrent)
	return w, nil
}

// parseAuthorities makes what judges certificates.
func parseAuthorities(keys []ssh.PublicKey, now func() time.Time) (*auth.AuthorizedKeys, error) {
	var lines strings.Builder
	for _, key := range keys {
		if err := auth.CheckKey(key); err != nil {
			return nil, err
		}
		lines.WriteString("cert-authority ")
		lines.Write(ssh.MarshalAuthorizedKey(key))
	}
	a, err := auth.ParseAuthorizedKeys("authority", []byte(lines.String()))
	if err == nil {
		a.Now = now
	}
	return a, err
}

// Close gives back idle connections. No other method may be called after it.
func (w *Webhook) Close() { w.client.CloseIdleConnections() }

// Authorize admits whom the webhook admits. The task's grant plays no part. One
// question is asked for all that want the same answer at once. It returns within
// twice Config.Timeout.
func (w *Webhook) Authorize(ctx context.Context, id auth.Identity, task auth.Task) (*ssh.Permissions, error) {
	q, limit, err := w.question(ctx, id, task)
	if err != nil {
		return nil, err
	}
	a, err := w.answerTo(ctx, q)
	if err != nil {
		return nil, err
	}
	return a.permissions(limit, q.fallbackName(), w.config.Now())
}

// Source names the webhook to its operator.
func (w *Webhook) Source() string { return "webhook at " + w.url.Host }

// answerTo returns a remembered answer, or asks. Refusals are answers.
func (w *Webhook) answerTo(ctx context.Context, q *question) (*answer, error) {
	key := q.cacheKey()
	waiting, cancel := context.WithTimeout(ctx, w.config.Timeout)
	defer cancel()
	for {
		t := w.cache.turn(key, w.config.Now())
		switch {
		case t.lead:
			w.lead(ctx, key, t.flight, q)
			return t.flight.answer, t.flight.err
		case t.flight == nil:
			return t.answer, t.err
		}
		select {
		case <-t.flight.done:
			if !t.flight.calledOff {
				return t.flight.answer, t.flight.err
			}
		case <-waiting.Done():
			return nil, fmt.Errorf("%w: there was no time left to wait for its answer: %w", ErrUnavailable, waiting.Err())
		}
	}
}

// lead asks for all who want this answer.
func (w *Webhook) lead(ctx context.Context, key cacheKey, f *flight, q *question) {
	var keep time.Duration
	f.err = fmt.Errorf("%w: the question did not end", ErrUnavailable)
	defer func() { w.cache.land(key, f, w.config.Now(), keep) }() // also when it panics: others wait
	limited, cancel := context.WithTimeout(ctx, w.config.Timeout)
	defer cancel()
	if f.err = w.takePlace(limited); f.err != nil {
		f.calledOff = ctx.Err() != nil
		return
	}
	defer func() { <-w.slots }()
	if !w.budget.take(w.config.Now()) {
		f.err = fmt.Errorf("%w: too many questions within a minute", ErrUnavailable)
		return
	}
	f.answer, f.err = w.ask(limited, q)
	switch {
	case f.err == nil:
		keep = f.answer.keepFor(w.config)
		w.logAllowed(q, f.answer)
	case ctx.Err() == nil:
		keep = failureFor
	default:
		f.calledOff = true
	}
}

// takePlace waits for leave to ask. Few wait: each is a guest who is signing in.
func (w *Webhook) takePlace(ctx context.Context) error {
	select {
	case w.slots <- struct{}{}:
		return nil
	default:
	}
	defer w.waiting.Add(-1)
	if w.waiting.Add(1) > 4*int64(w.config.MaxConcurrent) {
		return fmt.Errorf("%w: too many guests are waiting for it", ErrUnavailable)
	}
	select {
	case w.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: too many questions are under way", ErrUnavailable)
	}
}

func (w *Webhook) logAllowed(q *question, a *answer) {
	if a.allow && a.reason != "" {
		w.config.Log.Info("webhook lets a guest in", "task", q.Data.Task, "user", cmp.Or(a.name, q.fallbackName()), "request", q.Data.RequestID, "reason", a.reason)
	}
}
