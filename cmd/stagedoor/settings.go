package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
	"github.com/stagedoor/stagedoor/auth/person"
	"github.com/stagedoor/stagedoor/gateway"
)

// Files in the state directory.
const (
	hostKeyFile    = "ssh_host_ed25519_key"
	guestCAFile    = "guest_ca"
	renewalKeyFile = "renewal_key"
	tokenKeyFile   = "token_key"
	acmeDir        = "acme"
)

// purposes of the keys in the state directory, for their owner.
var purposes = map[string]string{
	hostKeyFile:    "guests' ssh knows the gateway by it",
	guestCAFile:    "vouches for guests towards agents",
	renewalKeyFile: "lets agents come back",
	tokenKeyFile:   "signs host tokens (stagedoor token)",
}

// madeKey is a key that was made on this start.
type madeKey struct{ file, purpose string }

// settings loads every file that c names and reports what is wrong with them.
// The result is of use only when r is ok. With create, keys that are missing in
// the state directory are made; otherwise passing ones take their place, and
// nothing is written. Whoever gave partners closes them.
func (c *Config) settings(r *report, certificates *certificates, partners *partners, create bool) gateway.Settings {
	keys := keystore{dir: c.StateDir, create: create}
	roots := c.roots(r)
	forges := c.resolver(r, partners, roots)
	hostKeys := c.hostKeys(r, keys)
	renewalKey, otherRenewalKeys := c.renewalKeys(r, keys)
	return gateway.Settings{
		HostKeys:     hostKeys,
		NextHostKeys: c.nextHostKeys(r, hostKeys),
		CA:           stateKey(r, keys, guestCAFile, auth.LoadOrCreateSigner, newSigner),
		RenewalKey:   renewalKey,
		Certificate:  certificates.source(c, r),
		Tokens:       c.tokens(r, keys, partners, roots),
		Guests:       c.guests(r, forges, c.webhook(r, partners, roots)),
		Revoked:      c.revoked(r, partners.log),
		Forges:       forges,
		Issuers:      c.issuers(r, partners, roots),
		Policy:       c.mostPermissions(),
		Address:      c.address(),
		HTTPSAddress: c.httpsAddress(),
		Agents:       c.agents(r),
		Limits:       c.Limits.forGateway(),
		Penalties:    c.penalties(),

		OtherRenewalKeys: otherRenewalKeys,
		ExtraAlgorithms:  c.SSH.ExtraAlgorithms,

		SignIn:           c.signIn(r, partners, roots),
		OneTimePasswords: c.Guests.SignIn.OneTimePasswords,
	}
}

// address is what guests give to ssh. Port 0, which is chosen when listening,
// stays 0 here.
func (c *Config) address() string {
	if c.SSH.Address != "" {
		return c.SSH.Address
	}
	listen := c.SSH.Listen
	if off(listen) {
		listen = c.HTTPS.Listen // it takes SSH as well
	}
	_, port, _ := net.SplitHostPort(listen)
	return net.JoinHostPort(c.Domain, port)
}

// httpsAddress is what agents and browsers reach. Port 0 stays as it does in
// address. Without a domain the host is that of ssh.address, which has to be set
// then.
func (c *Config) httpsAddress() string {
	if c.HTTPS.Address != "" {
		return c.HTTPS.Address
	}
	host := c.Domain
	if host == "" {
		host, _, _ = net.SplitHostPort(c.SSH.Address)
	}
	_, port, _ := net.SplitHostPort(c.HTTPS.Listen)
	return net.JoinHostPort(host, port)
}

// agents are the programs that jobs download; nil: none.
func (c *Config) agents(r *report) *gateway.Agents {
	if off(c.HTTPS.Agents) {
		return nil
	}
	agents, err := gateway.OpenAgents(c.HTTPS.Agents)
	if err != nil {
		r.add("https.agents", "%s", fileError(c.HTTPS.Agents, err))
	}
	return agents
}

func (l Limits) forGateway() gateway.Limits {
	g := gateway.Limits{
		HandshakeTimeout:         l.HandshakeTimeout,
		Unauthenticated:          l.Unauthenticated,
		UnauthenticatedPerSource: l.UnauthenticatedPerSource,
		AuthTries:                l.AuthTries,
		BrowserTimeout:           l.BrowserTimeout,
		BrowserWaiting:           l.BrowserWaiting,
		BrowserWaitingPerSource:  l.BrowserWaitingPerSource,
		ConnectionsPerIdentity:   l.ConnectionsPerIdentity,
		ChannelsPerConnection:    l.ChannelsPerConnection,
		ChannelsPerIdentity:      l.ChannelsPerIdentity,
		StreamsPerTunnel:         l.StreamsPerTunnel,
		TunnelsPerTask:           l.TunnelsPerTask,
		BufferedBytes:            int64(l.BufferedBytes),
		SessionTime:              l.SessionTime,
		KeepaliveInterval:        l.KeepaliveInterval,
		KeepaliveCount:           l.KeepaliveCount,
		HostTimeout:              l.HostTimeout,
		HostGrace:                l.HostGrace,
	}
	if g.SessionTime == 0 {
		g.SessionTime = -1 // there, zero is the default
	}
	return g
}

// keystore is the state directory.
type keystore struct {
	dir    string
	create bool
}

func (k keystore) path(name string) string { return filepath.Join(k.dir, name) }

// stateKey loads a key of the state directory, or makes it.
func stateKey[K any](r *report, k keystore, name string, load func(string) (K, bool, error), passing func() (K, error)) K {
	var key K
	var err error
	if _, missing := os.Stat(k.path(name)); !k.create && errors.Is(missing, fs.ErrNotExist) {
		key, err = passing()
	} else {
		var made bool
		if key, made, err = load(k.path(name)); made {
			r.made = append(r.made, madeKey{k.path(name), purposes[name]})
		}
	}
	if err != nil {
		r.add("state_dir", "%v%s", err, stateDirHint(err))
	}
	return key
}

func stateDirHint(err error) string {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return "; let the gateway's user own the directory, or choose another with state_dir (--state-dir)"
	}
	return ""
}

func newEd25519() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

func newSigner() (ssh.Signer, error) {
	key, err := newEd25519()
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(key)
}

func (c *Config) hostKeys(r *report, k keystore) []ssh.Signer {
	if len(c.SSH.HostKeys) == 0 {
		return []ssh.Signer{stateKey(r, k, hostKeyFile, auth.LoadOrCreateSigner, newSigner)}
	}
	return loadSigners(r, "ssh.host_keys", c.SSH.HostKeys)
}

// nextHostKeys are those that take over one day. One in use already is an
// oversight: it would have to stay when the others go.
func (c *Config) nextHostKeys(r *report, now []ssh.Signer) []ssh.Signer {
	next := loadSigners(r, "ssh.next_host_keys", c.SSH.NextHostKeys)
	for _, signer := range next {
		print := ssh.FingerprintSHA256(signer.PublicKey())
		if slices.ContainsFunc(now, func(s ssh.Signer) bool { return ssh.FingerprintSHA256(s.PublicKey()) == print }) {
			r.add("ssh.next_host_keys", "the key %s is in use already: move it to one of the two lists", print)
		}
	}
	return next
}

// loadSigners loads the private keys that a setting lists, at most one of each
// type.
func loadSigners(r *report, key string, list []string) []ssh.Signer {
	var signers []ssh.Signer
	files := map[string]string{} // by algorithm
	for i, file := range list {
		signer, err := auth.LoadSigner(file)
		if err != nil {
			r.addItem(key, i, "%s", fileError(file, err))
			continue
		}
		algorithm := signer.PublicKey().Type()
		if other, twice := files[algorithm]; twice {
			r.addItem(key, i, "%s is a second key of type %s, beside %s: keep one of each type", file, algorithm, other)
			continue
		}
		files[algorithm] = file
		signers = append(signers, signer)
	}
	return signers
}

// fileError says what is wrong with a file that a setting names.
func fileError(file string, err error) string {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return file + ": " + openHint(err)
	}
	if errors.Is(err, auth.ErrPrivateKey) && file != "-" {
		return file + " is a private key: give its public half, " + auth.PublicHalf(file)
	}
	return err.Error()
}

// guests admits the keys of grants and of the accounts that they name, then those
// of the operator's files, then whom the webhook lets in, and narrows what any may
// do.
func (c *Config) guests(r *report, forges *forge.Resolver, hook auth.Authorizer) auth.Authorizer {
	any := auth.AnyOf{auth.GrantKeys{}, &forge.Authorizer{Resolver: forges, Accounts: forge.OfGrant}}
	for i, file := range c.Guests.AuthorizedKeys {
		keys, err := loadAuthorizedKeys(file)
		if err != nil {
			r.addItem("guests.authorized_keys", i, "%s", fileError(file, err))
			continue
		}
		any = append(any, keys)
	}
	any = append(any, c.authorities(r)...)
	if len(c.Guests.SignIn.Providers) > 0 {
		any = append(any, &person.Authorizer{Rules: c.signInRules(r)})
	}
	if c.Guests.SignIn.OneTimePasswords {
		any = append(any, auth.OneTimePasswords{})
	}
	any = append(any, hook) // last, as it takes the longest; it may be nil
	if most := c.mostPermissions(); most != nil {
		return narrowed{any, most}
	}
	return any
}

// loadAuthorizedKeys refuses what sshd refuses: a file that others can write
// their own key into.
func loadAuthorizedKeys(file string) (*auth.AuthorizedKeys, error) {
	data, err := readUnwritable(file)
	if err != nil {
		return nil, err
	}
	return auth.ParseAuthorizedKeys(file, data)
}

// readUnwritable reads a file that nobody else may be able to write to.
func readUnwritable(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o022 != 0 {
		return nil, &fs.PathError{Op: "read", Path: file, Err: errors.New("others can add a key of theirs to it: run chmod go-w " + file)}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxAuthorizedKeys+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxAuthorizedKeys {
		return nil, &fs.PathError{Op: "read", Path: file, Err: errors.New("it is larger than 16 MiB")}
	}
	return data, nil
}

const maxAuthorizedKeys = 16 << 20
