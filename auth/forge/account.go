package forge

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	maxForgeName = 253 // a name in DNS
	maxLogin     = 255 // GitLab's limit, the largest
	maxList      = 100
	maxAccount   = maxForgeName + maxLogin + len(":#9223372036854775807")
)

// An Account is an account on a forge. Of Login and ID at least one is given; with
// both, ID decides. Values are comparable.
type Account struct {
	Forge string // name of a configured forge, in lower case
	Login string // in lower case: forges do not tell case apart; "" when the ID says all
	ID    int64  // the forge's number for the account; 0: not pinned
}

// ParseAccount reads forge:login, forge:login#id or forge:#id. Names are folded
// to lower case. Logins are letters, digits, dots, underscores and hyphens, in
// what forms depends on the forge: see [Resolver.Check].
func ParseAccount(s string) (Account, error) {
	a, err := parseAccount(s)
	if err != nil {
		return Account{}, fmt.Errorf("account %.64q: %w", s, err)
	}
	return a, nil
}

// ParseAccounts reads a list of up to 100, and stops at the first that is wrong.
// Accounts that are listed twice are returned once.
func ParseAccounts(list []string) ([]Account, error) {
	if len(list) > maxList {
		return nil, fmt.Errorf("there are %d accounts, at most %d are allowed", len(list), maxList)
	}
	accounts := make([]Account, 0, len(list))
	seen := map[Account]bool{}
	for _, s := range list {
		a, err := ParseAccount(s)
		if err != nil {
			return nil, err
		}
		if !seen[a] {
			seen[a] = true
			accounts = append(accounts, a)
		}
	}
	return accounts, nil
}

func parseAccount(s string) (a Account, err error) {
	if len(s) > maxAccount {
		return a, fmt.Errorf("%d bytes long, at most %d are allowed", len(s), maxAccount)
	}
	name, who, ok := strings.Cut(s, ":")
	if !ok {
		return a, errors.New("write forge:login, such as github:alice")
	}
	login, number, pinned := strings.Cut(who, "#")
	if pinned {
		if a.ID, err = parseID(number); err != nil {
			return a, err
		}
	}
	a.Forge, a.Login = foldASCII(name), foldASCII(login)
	if err := checkName(a.Forge); err != nil {
		return a, err
	}
	if login == "" && pinned {
		return a, nil
	}
	return a, checkLogin(a.Login, maxLogin)
}

// parseID takes one way to write a number only.
func parseID(s string) (int64, error) {
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id < 1 || strconv.FormatInt(id, 10) != s {
		return 0, errors.New("what follows # must be the account's numeric ID")
	}
	return id, nil
}

// String is what ParseAccount reads.
func (a Account) String() string {
	if a.ID == 0 {
		return a.Forge + ":" + a.Login
	}
	return a.Forge + ":" + a.Login + "#" + strconv.FormatInt(a.ID, 10)
}

// named returns what a guest is called after: the login that the account has now
// or, where the forge does not tell, the number.
func (a Account) named(login string) string {
	if login == "" {
		return Account{Forge: a.Forge, ID: a.ID}.String()
	}
	return Account{Forge: a.Forge, Login: login}.String()
}

// notLogins are endings that make something else of a name on one forge or
// another: its feed, its keys, its picture.
var notLogins = []string{".keys", ".gpg", ".git", ".atom", ".rss", ".png", ".json"}

// checkLogin holds a login to what no forge reads as anything but a name. It goes
// into a path.
func checkLogin(s string, limit int) error {
	switch {
	case s == "":
		return errors.New("the login is missing: write forge:login, such as github:alice")
	case len(s) > limit:
		return fmt.Errorf("the login is %d characters long, at most %d are allowed", len(s), limit)
	}
	for i, r := range s {
		if !isAlnum(r) && r != '_' && (i == 0 || r != '-' && r != '.') {
			return fmt.Errorf("%.64q is no login: use letters, digits, '.', '_' and '-', a letter or digit first", s)
		}
	}
	if strings.Contains(s, "..") || strings.HasSuffix(s, ".") {
		return fmt.Errorf("%.64q is no login: its dots are in the wrong place", s)
	}
	for _, ending := range notLogins {
		if strings.HasSuffix(s, ending) {
			return fmt.Errorf("%.64q is no login: it ends in %s", s, ending)
		}
	}
	return nil
}

// check holds a login, in lower case, to the rules of one kind of forge.
func (k Kind) check(login string) error {
	switch k {
	case GitHub:
		// Up to 39 letters, digits and hyphens; managed users of an enterprise
		// have its short code after an underscore.
		name, code, managed := strings.Cut(login, "_")
		if err := checkLogin(login, 39); err != nil {
			return err
		}
		if strings.ContainsAny(login, ".") || name == "" || managed && (code == "" || strings.ContainsAny(code, "_-")) {
			return fmt.Errorf("%.64q is no login on GitHub: those are letters, digits and hyphens", login)
		}
		return nil
	case GitLab:
		return checkLogin(login, 255)
	}
	return checkLogin(login, 40)
}

func isAlnum(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

// foldASCII folds ASCII alone: strings.ToLower would turn the Kelvin sign into
// a k.
func foldASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}
