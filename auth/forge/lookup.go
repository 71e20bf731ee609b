package forge

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	strict "github.com/go-jose/go-jose/v4/json"
	"golang.org/x/crypto/ssh"
)

// maxRenames is how often an account may change its name under our eyes.
const maxRenames = 3

// A found is what a forge said of an account. It never changes.
type found struct {
	keys      []key
	login     string    // of the account now; "" when that is not known
	source    string    // URL that the keys are from
	etag      string    // of the answer from there
	confirmed time.Time // when the keys were asked for
	verified  time.Time // when login and ID were last found to be one account
}

// publicKeys are those that are accepted at a time.
func (f *found) publicKeys(now time.Time) []ssh.PublicKey {
	var keys []ssh.PublicKey
	for _, k := range f.keys {
		if k.until.IsZero() || now.Before(k.until) {
			keys = append(keys, k.PublicKey)
		}
	}
	return keys
}

// has says whether a key, in wire format, is accepted at a time.
func (f *found) has(wire string, now time.Time) bool {
	return slices.ContainsFunc(f.keys, func(k key) bool {
		return k.wire == wire && (k.until.IsZero() || now.Before(k.until))
	})
}

// within says whether f has no key that old has not.
func (f *found) within(old *found) bool {
	return !slices.ContainsFunc(f.keys, func(k key) bool {
		return !slices.ContainsFunc(old.keys, func(o key) bool { return o.wire == k.wire })
	})
}

// A lookup asks a forge for one account.
type lookup struct {
	*site
	account     Account
	old         *found // what was known; may be nil
	now         time.Time
	verifiedFor time.Duration
}

func (l *lookup) run(ctx context.Context) (*found, error) {
	switch {
	case l.account.ID == 0:
		return l.keysOf(ctx, l.account.Login)
	case l.Kind == GitLab:
		return l.byID(ctx)
	}
	return l.pinned(ctx)
}

// pinned reads the keys of the name that the ID has. The name is looked up after
// the keys: see the package comment.
func (l *lookup) pinned(ctx context.Context) (*found, error) {
	login := l.account.Login
	if l.old != nil {
		login = l.old.login
	}
	for range maxRenames {
		var f *found
		missing := error(nil)
		if login != "" {
			var err error
			f, err = l.keysOf(ctx, login)
			switch {
			case errors.Is(err, ErrNoAccount) || errors.Is(err, errMoved):
				missing = err
			case err != nil:
				return nil, err
			case l.stillVerified(f):
				f.verified = l.old.verified
				return f, nil
			}
		}
		present, err := l.loginOf(ctx, login)
		if err != nil {
			return nil, err
		}
		if present == login {
			if missing != nil {
				return nil, missing
			}
			f.verified = l.now
			return f, nil
		}
		login = present
	}
	return nil, fmt.Errorf("%w: the account on %s changes its name faster than it can be asked about", ErrUnavailable, l.Name)
}

// stillVerified says that the ID need not be looked up: the keys are some of
// those that were found to be its own not long ago.
func (l *lookup) stillVerified(f *found) bool {
	return l.old != nil && f.login == l.old.login && f.within(l.old) && l.now.Before(l.old.verified.Add(l.verifiedFor))
}

// byID reads the keys by ID. The name is for people.
func (l *lookup) byID(ctx context.Context) (*found, error) {
	f, err := l.keysFrom(ctx, l.api.JoinPath("users", l.id(), "keys"), true)
	if err != nil {
		return nil, err
	}
	if l.old != nil && l.now.Before(l.old.verified.Add(l.verifiedFor)) {
		f.login, f.verified = l.old.login, l.old.verified
		return f, nil
	}
	f.verified = l.now
	f.login, err = l.gitLabLogin(ctx)
	return f, err
}

func (l *lookup) id() string { return strconv.FormatInt(l.account.ID, 10) }

func (l *lookup) keysOf(ctx context.Context, login string) (*found, error) {
	if err := l.Kind.check(login); err != nil { // it goes into a path
		return nil, fmt.Errorf("%w: %w", ErrNoAccount, err)
	}
	u := l.web.JoinPath(login + ".keys")
	if l.KeysFromAPI {
		u = l.api.JoinPath("users", login, "keys")
	}
	f, err := l.keysFrom(ctx, u, l.KeysFromAPI)
	if err != nil {
		return nil, err
	}
	f.login = login
	return f, nil
}

// keysFrom reads a list of keys, if it is not what we have.
func (l *lookup) keysFrom(ctx context.Context, u *url.URL, api bool) (*found, error) {
	if api {
		u.RawQuery = "per_page=" + strconv.Itoa(maxKeys) + "&limit=" + strconv.Itoa(maxKeys) // limit= is Gitea's
	}
	f := &found{source: u.String(), confirmed: l.now}
	etag := ""
	if l.old != nil && l.old.source == f.source {
		etag = l.old.etag
	}
	got, err := l.get(ctx, u, etag, api)
	switch {
	case err != nil:
		return nil, err
	case got.unchanged:
		f.keys, f.etag = l.old.keys, l.old.etag
		return f, nil
	case got.more:
		return nil, fmt.Errorf("%w: the account on %s has more keys than are read (%d): remove those that are not in use", ErrUnavailable, l.Name, maxKeys)
	}
	f.etag = got.etag
	if api {
		f.keys, err = parseAPIKeys(got.body)
	} else {
		f.keys, err = parseKeys(got.body)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the answer of %s is of no use: %w", ErrUnavailable, l.Name, err)
	}
	return f, nil
}

// loginOf returns the name that the account's ID has now. On Gitea, which tells
// IDs by name only or by searching, it begins with the name that it had.
func (l *lookup) loginOf(ctx context.Context, login string) (string, error) {
	if l.Kind == GitHub {
		var u user
		if err := l.getJSON(ctx, l.api.JoinPath("user", l.id()), &u); err != nil {
			return "", err
		}
		return l.loginFrom(u)
	}
	if login != "" {
		var u user
		err := l.getJSON(ctx, l.api.JoinPath("users", login), &u)
		if err == nil && u.ID == l.account.ID {
			return l.loginFrom(u)
		}
		if err != nil && !errors.Is(err, ErrNoAccount) && !errors.Is(err, errMoved) {
			return "", err
		}
	}
	return l.searchLogin(ctx)
}

func (l *lookup) searchLogin(ctx context.Context) (string, error) {
	u := l.api.JoinPath("users", "search")
	u.RawQuery = "uid=" + l.id() + "&limit=1"
	var result struct {
		Data []user `json:"data"`
	}
	if err := l.getJSON(ctx, u, &result); err != nil {
		return "", err
	}
	if len(result.Data) != 1 {
		return "", fmt.Errorf("%w with the ID %d on %s", ErrNoAccount, l.account.ID, l.Name)
	}
	return l.loginFrom(result.Data[0])
}

// A user is what APIs say of an account. GitLab says username where others say
// login.
type user struct {
	ID       int64  `json:"id"`
	Login    string `json:"login"`
	Username string `json:"username"`
	State    string `json:"state"` // GitLab's: active, blocked, banned, …
}

// loginFrom believes only what is about the account that was asked for.
func (l *lookup) loginFrom(u user) (string, error) {
	login := foldASCII(u.Login)
	if l.Kind == GitLab {
		login = foldASCII(u.Username)
	}
	if u.ID != l.account.ID || l.Kind.check(login) != nil {
		return "", fmt.Errorf("%w: %s answers about another account", ErrUnavailable, l.Name)
	}
	if u.State != "" && u.State != "active" {
		return "", fmt.Errorf("%w in use: %s calls it %.20q", ErrNoAccount, l.Name, u.State)
	}
	return login, nil
}

// gitLabLogin returns what the account is called, or "" where that cannot be
// told: without a token GitLab tells names to IDs only who knows the name.
func (l *lookup) gitLabLogin(ctx context.Context) (string, error) {
	if l.Token != "" {
		var u user
		if err := l.getJSON(ctx, l.api.JoinPath("users", l.id()), &u); err != nil {
			return "", err
		}
		return l.loginFrom(u)
	}
	login := l.account.Login
	if login == "" {
		return "", nil
	}
	at := l.api.JoinPath("users")
	at.RawQuery = url.Values{"username": {login}}.Encode()
	var users []user
	if err := l.getJSON(ctx, at, &users); err != nil {
		return "", err
	}
	if len(users) != 1 || users[0].ID != l.account.ID {
		return "", nil // somebody else has the name
	}
	return l.loginFrom(users[0])
}

func (l *lookup) getJSON(ctx context.Context, u *url.URL, into any) error {
	got, err := l.get(ctx, u, "", true)
	if err != nil {
		return err
	}
	if err := strict.Unmarshal(got.body, into); err != nil {
		return fmt.Errorf("%w: the answer of %s is of no use: %w", ErrUnavailable, l.Name, errNotJSON)
	}
	return nil
}
