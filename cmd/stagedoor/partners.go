package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
	"github.com/stagedoor/stagedoor/auth/issuer"
	"github.com/stagedoor/stagedoor/auth/jwks"
	"github.com/stagedoor/stagedoor/auth/person"
	"github.com/stagedoor/stagedoor/auth/webhook"
)

// partners are those whom the gateway asks about hosts and guests. They are kept
// from one load of the configuration to the next as long as nothing about them
// changes, with all that they know.
type partners struct {
	log     *slog.Logger // nil: none
	forges  kept[*forge.Resolver]
	webhook kept[*webhook.Webhook]
	issuers kept[*issuer.Set]
	people  kept[[]*person.Provider]
	keySets kept[jwks.Sets]
}

// kept is something that was made of a configuration.
type kept[T any] struct {
	of  string // the configuration, as text
	it  T
	end []func() // closes all that were made: connections may still go by an older one
}

// get returns what was made of the same configuration before, or makes it.
func (k *kept[T]) get(of string, make func() (T, func(), error)) (T, error) {
	if len(k.end) > 0 && k.of == of {
		return k.it, nil
	}
	it, end, err := make()
	if err != nil {
		return it, err
	}
	k.of, k.it, k.end = of, it, append(k.end, end)
	return it, nil
}

func (k *kept[T]) close() {
	for _, end := range k.end {
		end()
	}
}

// close is for when no gateway uses them any more.
func (p *partners) close() {
	p.forges.close()
	p.webhook.close()
	p.issuers.close()
	p.people.close()
	p.keySets.close()
}

// roots are whom partners are vouched for by: the system's, and those of a file.
func (c *Config) roots(r *report) *x509.CertPool {
	if c.CAFile == "" {
		return nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	data, err := os.ReadFile(c.CAFile)
	if err != nil {
		r.add("ca_file", "%s", fileError(c.CAFile, err))
	} else if !pool.AppendCertsFromPEM(data) {
		r.add("ca_file", "there is no certificate in %s: it takes PEM", c.CAFile)
	}
	return pool
}

// resolver makes the forges that grants may name accounts of: the public ones,
// unless one is configured under its name, and those that are configured.
func (c *Config) resolver(r *report, p *partners, roots *x509.CertPool) *forge.Resolver {
	forges := forge.PublicForges()
	for i, f := range c.Forges {
		made, err := f.forge(forges)
		if err != nil {
			r.addItem("forges", i, "%v", err)
			continue
		}
		forges = append(slices.DeleteFunc(forges, func(public forge.Forge) bool { return public.Name == made.Name }), made)
	}
	of := fmt.Sprint(c.CAFile)
	for _, f := range forges {
		of += fmt.Sprintf("\n%q", []string{f.Name, string(f.Kind), f.URL, f.APIURL, f.Token, fmt.Sprint(f.KeysFromAPI)})
	}
	resolver, err := p.forges.get(of, func() (*forge.Resolver, func(), error) {
		resolver, err := forge.New(forge.Config{Forges: forges, RootCAs: roots, Log: p.log})
		if err != nil {
			return nil, nil, err
		}
		return resolver, resolver.Close, nil
	})
	if err != nil {
		r.add("forges", "%v", err)
	}
	return resolver
}

// forge is what is configured, completed by the public forge of the same name.
func (f Forge) forge(public []forge.Forge) (forge.Forge, error) {
	made := forge.Forge{Name: strings.ToLower(f.Name), Kind: forge.Kind(f.Kind), URL: f.URL, APIURL: f.APIURL, KeysFromAPI: f.KeysFromAPI}
	if f.Name == "" {
		return made, fmt.Errorf("name is missing: it is what stands before the colon of an account, as in git.example.com:alice")
	}
	if i := slices.IndexFunc(public, func(p forge.Forge) bool { return p.Name == made.Name }); i >= 0 {
		if f.Kind == "" {
			made.Kind = public[i].Kind
		}
		if f.URL == "" {
			made.URL, made.APIURL = public[i].URL, public[i].APIURL
		}
	}
	if made.URL == "" && made.Kind != "" && made.Name != "github" && made.Name != "gitlab" {
		made.URL = "https://" + made.Name
	}
	if f.TokenFile == "" {
		return made, nil
	}
	token, err := readSecret(f.TokenFile)
	made.Token = strings.TrimSpace(string(token))
	return made, err
}

// maxSecret is beyond any secret that a file holds.
const maxSecret = 4 << 10

// readSecret reads a file that nobody else may be able to read.
func readSecret(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", file, openHint(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, &fs.PathError{Op: "read", Path: file, Err: fmt.Errorf("others can read it: run chmod 600 %s", file)}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && (len(data) == 0 || len(data) > maxSecret) {
		err = fmt.Errorf("%s: it is empty, or larger than any secret", file)
	}
	return data, err
}

// webhook makes the endpoint that is asked who may enter, nil if there is none.
func (c *Config) webhook(r *report, p *partners, roots *x509.CertPool) auth.Authorizer {
	w := c.Guests.Webhook
	switch {
	case w.URL == "" && w.SecretFile == "":
		return nil
	case w.URL == "":
		r.add("guests.webhook.url", "there is a secret, and nobody to ask with it: set the URL")
		return nil
	case w.SecretFile == "":
		r.add("guests.webhook.secret_file", "it is needed: by its secret the webhook knows who asks; make one with echo \"whsec_$(openssl rand -base64 32)\"")
		return nil
	}
	text, err := readSecret(w.SecretFile)
	if err != nil {
		r.add("guests.webhook.secret_file", "%v", err)
		return nil
	}
	config := webhook.Config{URL: w.URL, Timeout: w.Timeout, CacheFor: w.CacheFor, RootCAs: roots, Log: p.log}
	for line := range strings.Lines(string(text)) {
		secret, err := webhook.ParseSecret(line)
		if err != nil {
			r.add("guests.webhook.secret_file", "%v", err)
			return nil
		}
		config.Secrets = append(config.Secrets, secret)
	}
	config.Authorities = c.webhookAuthorities(r)
	of := fmt.Sprintf("%q %q %v %v", c.CAFile, w.URL, w.Timeout, w.CacheFor) + string(text)
	for _, key := range config.Authorities {
		of += string(ssh.MarshalAuthorizedKey(key))
	}
	hook, err := p.webhook.get(of, func() (*webhook.Webhook, func(), error) {
		hook, err := webhook.New(config)
		if err != nil {
			return nil, nil, err
		}
		return hook, hook.Close, nil
	})
	if err != nil {
		r.add("guests.webhook.url", "%v", err)
		return nil
	}
	return hook
}

// webhookAuthorities reads the public keys of those who sign user certificates.
func (c *Config) webhookAuthorities(r *report) (keys []ssh.PublicKey) {
	for i, file := range c.Guests.Webhook.Authorities {
		list, err := loadAuthorizedKeys(file)
		if err != nil {
			r.addItem("guests.webhook.authorities", i, "%s", fileError(file, err))
			continue
		}
		keys = append(keys, list.PublicKeys()...)
	}
	return keys
}

// issuers makes the CI providers whose ID tokens count, nil if there is none. None
// is asked for anything yet: one that is down must not keep the gateway from
// starting.
func (c *Config) issuers(r *report, p *partners, roots *x509.CertPool) *issuer.Set {
	if len(c.Hosts.Issuers) == 0 {
		return nil
	}
	of := fmt.Sprintf("%q %q %+v", c.CAFile, c.Domain, c.Hosts.Issuers)
	set, err := p.issuers.get(of, func() (*issuer.Set, func(), error) {
		var verifiers []*issuer.Verifier
		for i, one := range c.Hosts.Issuers {
			v, err := c.verifier(one, &issuer.Options{Keys: jwks.Options{RootCAs: roots, Logger: p.log}})
			if err != nil {
				r.addItem("hosts.issuers", i, "%v", err)
				continue
			}
			verifiers = append(verifiers, v)
		}
		set, err := issuer.NewSet(verifiers...)
		if err == nil && len(verifiers) < len(c.Hosts.Issuers) {
			err = errors.New("not all can be used")
		}
		if err != nil {
			for _, v := range verifiers {
				v.Close()
			}
			return nil, nil, err
		}
		return set, set.Close, nil
	})
	if err != nil {
		r.add("hosts.issuers", "%v", err)
	}
	return set
}

// verifier completes what is configured by the profile.
func (c *Config) verifier(one Issuer, o *issuer.Options) (*issuer.Verifier, error) {
	profile, err := issuer.Named(one.Profile, one.URL)
	if err != nil {
		return nil, err
	}
	if one.Issuer != "" {
		profile.Issuer = one.Issuer
	}
	if one.Task != "" {
		profile.Task = one.Task
	}
	if one.Require != nil {
		profile.Require = one.Require
	}
	profile.TriggeringActor = one.TriggeringActor
	audience := one.Audience
	switch {
	case audience != "":
	case one.Profile == "circleci":
		audience = one.URL // the organization, which CircleCI puts there by itself
	case c.Domain != "":
		audience = "https://" + c.Domain
	}
	return issuer.New(profile, audience, o)
}
