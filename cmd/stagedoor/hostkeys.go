package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/jwks"
)

// tokens makes what host tokens are verified with: the keys of files, read anew
// each time, and the key sets at URLs, which are kept.
func (c *Config) tokens(r *report, k keystore, p *partners, roots *x509.CertPool) *auth.TokenVerifier {
	v := &auth.TokenVerifier{Audience: c.Hosts.Audience}
	if len(c.Hosts.TokenKeys) == 0 {
		key := stateKey(r, k, tokenKeyFile, auth.LoadOrCreateEd25519, newEd25519)
		if len(key) == ed25519.PrivateKeySize {
			v.Keys = append(v.Keys, key.Public())
		}
		return v
	}
	for i, entry := range c.Hosts.TokenKeys {
		if isURL(entry) {
			continue
		}
		keys, err := auth.LoadTokenVerifyKeys(entry)
		if err != nil {
			r.addItem("hosts.token_keys", i, "%s", keyFileError(entry, err))
			continue
		}
		v.Keys = append(v.Keys, keys...)
	}
	v.KeySets = c.keySets(r, p, roots)
	if k.create {
		v.KeySets.Renew() // a SIGHUP reads them anew, too; one that is down keeps nobody from starting
	}
	return v
}

// isURL tells a URL from a file.
func isURL(s string) bool { return strings.Contains(s, "://") }

// keyFileError names the file that is meant: the one listed may be a directory.
func keyFileError(listed string, err error) string {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		listed = at.Path
	}
	return fileError(listed, err)
}

// keySets makes the key sets at URLs.
func (c *Config) keySets(r *report, p *partners, roots *x509.CertPool) jwks.Sets {
	urls := slices.DeleteFunc(slices.Clone(c.Hosts.TokenKeys), func(entry string) bool { return !isURL(entry) })
	sets, err := p.keySets.get(fmt.Sprintf("%q %q", c.CAFile, urls), func() (jwks.Sets, func(), error) {
		var sets jwks.Sets
		bad := false
		for i, entry := range c.Hosts.TokenKeys {
			if !isURL(entry) {
				continue
			}
			set, err := jwks.New(entry, &jwks.Options{RootCAs: roots, Logger: p.log})
			if err != nil {
				r.addItem("hosts.token_keys", i, "%v", err)
				bad = true
				continue
			}
			sets = append(sets, set)
		}
		if bad {
			sets.Close()
			return nil, nil, errors.New("not all can be used")
		}
		return sets, sets.Close, nil
	})
	if err != nil {
		r.add("hosts.token_keys", "%v", err)
	}
	return sets
}

// renewalKeys makes what renewals are signed with, and the keys that let agents come
// back beside it.
func (c *Config) renewalKeys(r *report, k keystore) (signs ed25519.PrivateKey, others []ed25519.PublicKey) {
	if len(c.Hosts.RenewalKeys) == 0 {
		return stateKey(r, k, renewalKeyFile, auth.LoadOrCreateEd25519, newEd25519), nil
	}
	for i, file := range c.Hosts.RenewalKeys {
		loaded, err := auth.LoadTokenKey(file)
		if err != nil {
			r.addItem("hosts.renewal_keys", i, "%s", keyFileError(file, err))
			continue
		}
		key, ok := loaded.(ed25519.PrivateKey)
		switch {
		case !ok:
			r.addItem("hosts.renewal_keys", i, "%s holds no Ed25519 key: make one with stagedoor keygen", file)
		case i == 0:
			signs = key
		default:
			others = append(others, key.Public().(ed25519.PublicKey))
		}
	}
	return signs, others
}
