package gateway_test

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// withForge has a gateway look accounts up at a forge of this name every few
// milliseconds.
func withForge(t *testing.T, f *testenv.Forge, change ...func(*forge.Config)) func(*gateway.Settings) {
	t.Helper()
	c := forge.Config{
		Forges:  []forge.Forge{{Name: "forge", Kind: forge.GitHub, URL: f.URL}},
		RootCAs: f.Roots(), FreshFor: 20 * time.Millisecond, NegativeFor: 10 * time.Millisecond, PerMinute: 100_000,
	}
	for _, fn := range change {
		fn(&c)
	}
	forges, err := forge.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(forges.Close)
	return func(s *gateway.Settings) {
		s.Forges = forges
		s.Guests = auth.AnyOf{auth.GrantKeys{}, &forge.Authorizer{Resolver: forges, Accounts: forge.OfGrant}}
	}
}

// accountToken is a token whose grant names accounts.
func (w *world) accountToken(task string, accounts ...string) string {
	w.t.Helper()
	raw, err := auth.MintToken(w.tokenKey, auth.Token{
		Task: auth.TaskID(task), ID: rand.Text(), Expires: time.Now().Add(time.Hour), Grant: auth.Grant{Accounts: accounts},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// TestAccountsEnter: the keys of an account that the grant names let in at once,
// by splice and by jump, under the account's name. Others do not.
func TestAccountsEnter(t *testing.T) {
	f := testenv.NewForge(t)
	w := newWorld(t, withForge(t, f))
	alice, bob := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "bob")
	f.Set(583231, "alice", alice.Line)
	f.Set(2, "bob", bob.Line)
	w.startAgent(w.accountToken("task-1", "forge:alice#583231", "forge:nobody", "elsewhere:alice"))
	if out, err := w.sshCommand("task-1", alice, "echo in").CombinedOutput(); err != nil || string(out) != "in\n" {
		t.Errorf("alice: %v: %q", err, out)
	}
	if !strings.Contains(w.log.String(), "identity=forge:alice ") {
		t.Error("the log does not name the guest after the account")
	}
	if _, err := w.dial("task-1", ssh.PublicKeys(bob.Signer)); err == nil {
		t.Error("an account that the grant does not name is let in")
	}
	for _, account := range []string{"forge:nobody", "elsewhere:alice"} {
		if !strings.Contains(w.log.String(), "account="+account) {
			t.Errorf("the log does not say that %s cannot be looked up", account)
		}
	}

	says := func(_ *fakeHost, s *tunnel.Stream) { s.Write([]byte("host")) }
	w.startHost("task-2", w.accountToken("task-2", "forge:bob"), says)
	mustJump(t, w.mustDial("somebody", bob), "task-2").Close()
}

// TestAccountsAreKeptCurrent: a key that is added counts, and one that is removed
// does not, while the host stays as it is; sign-in asks nobody.
func TestAccountsAreKeptCurrent(t *testing.T) {
	f := testenv.NewForge(t)
	w := newWorld(t, withForge(t, f))
	old, next := testenv.NewKey(t, w.dir, "old"), testenv.NewKey(t, w.dir, "next")
	f.SetDown(true)
	f.Set(1, "alice", old.Line)
	w.startAgent(w.accountToken("task-1", "forge:alice")) // in spite of the forge
	enters := func(k testenv.Key) bool {
		c, err := w.dial("task-1", ssh.PublicKeys(k.Signer))
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if enters(old) {
		t.Error("a key is let in that nobody has vouched for")
	}
	f.SetDown(false)
	eventually(t, "the key counts once the forge is up", func() bool { return enters(old) })
	f.Set(1, "alice", next.Line)
	eventually(t, "the new key counts", func() bool { return enters(next) })
	eventually(t, "the old key does not", func() bool { return !enters(old) })
	f.SetDown(true)
	if !enters(next) {
		t.Error("the key that is known does not count while the forge is down")
	}
}

// TestAccountsAfterReload: settings with another Resolver find the accounts of
// hosts that are there already.
func TestAccountsAfterReload(t *testing.T) {
	before, after := testenv.NewForge(t), testenv.NewForge(t)
	w := newWorld(t, withForge(t, before))
	k := testenv.NewKey(t, w.dir, "alice")
	before.Set(1, "alice")
	after.Set(1, "alice", k.Line)
	w.startAgent(w.accountToken("task-1", "forge:alice"))
	settings := w.settings
	withForge(t, after)(&settings)
	if err := w.server.Reload(settings); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the account's key counts", func() bool {
		c, err := w.dial("task-1", ssh.PublicKeys(k.Signer))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// TestAccountsEndToEnd: the agent looks accounts up by itself, for guests whom the
// gateway only passes on. Where it cannot, its log says what that means.
func TestAccountsEndToEnd(t *testing.T) {
	f := testenv.NewForge(t)
	var forges *forge.Resolver
	fromHost := withForge(t, f)
	own := func(s *gateway.Settings) { fromHost(s); forges = s.Forges }
	w := newWorld(t, own)
	alice, bob := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "bob")
	f.Set(1, "alice", alice.Line)
	var log logBuffer
	hostKey := testenv.Signer(t)
	w.startAgent(w.accountToken("task-1", "forge:alice", "elsewhere:alice"), func(a *agent.Agent) {
		a.HostKey, a.EndToEndOnly, a.Forges, a.Logger = hostKey, true, forges, log.logger()
	})
	eventually(t, "the log says what is closed", func() bool {
		return strings.Contains(log.String(), "end to end is closed for an account") && strings.Contains(log.String(), "account=elsewhere:alice")
	})
	for _, test := range []struct {
		key  testenv.Key
		want string
	}{{alice, "in\n"}, {bob, ""}} {
		j := w.newJumper(map[string]ssh.PublicKey{"task-1": hostKey.PublicKey()}, "IdentityFile "+test.key.File)
		if out, err := j.command("-J", "task-1@gw", "task-1", "echo in").Output(); string(out) != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%v: %q, want %q", err, out, test.want)
		}
	}
	eventually(t, "the agent's log names the guest", func() bool { return strings.Contains(log.String(), "identity=forge:alice ") })
	if strings.Contains(log.String(), "account=forge:alice") {
		t.Error("the log says that an account is closed which is not")
	}
}
