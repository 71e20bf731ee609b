// Package issuer takes the ID tokens that CI providers give their jobs (OpenID
// Connect) for host tokens: a job registers as a host with no secret and no
// configuration of its own, and cannot be taken for another job.
//
//	p := issuer.GitHubActions("")
//	p.Require = map[string][]string{"repository_owner_id": {"123456"}}
//	v, err := issuer.New(p, "https://gateway.example.com", nil)
//	if err != nil {
//		return err
//	}
//	set, err := issuer.NewSet(v)
//	if err != nil {
//		return err
//	}
//	defer set.Close()
//	id, err := set.Verify(ctx, token) // id.Task, id.Actor, id.Expires …
//
// # What is trusted
//
// The issuer, for every word of its tokens, by HTTPS to its discovery document
// (OpenID Connect Discovery 1.0, section 4) and the keys that it names. The
// issuer of GitHub signs for everybody with a GitHub account, though, and a job
// chooses the audience itself. So a [Profile] of an issuer with many tenants
// wants to be told whose jobs are meant: [New] refuses it without a claim of
// [Profile.Tenant] in [Profile.Require]. The audience is to be this gateway's
// own, and the only one: whoever else a token is meant for could pass it on.
//
// # The task is derived
//
// A job cannot say which task it is the host of. [Profile.Task] makes the task's
// name of claims that the issuer vouches for, such that other claims make
// another name, always: see [Template]. The claims must tell jobs apart, not
// just runs; the jobs of a matrix are one run. Verifiers in a [Set] have names
// that begin differently, and [Set.Provider] says which names are taken, so that
// tokens of another origin can be kept off them.
//
// # The person
//
// [Identity.Actor] is who is behind the run as the forge knows them, with the
// numeric ID that outlives a change of names. It is empty where the token names
// nobody, or somebody who need not have write access to the repository.
//
// # When the issuer is down
//
// Keys are kept as package jwks describes. Without any, the error wraps
// auth.ErrTokenUnverified, and the agent should try again. An issuer that is not
// configured is never asked for anything, whatever a token says.
package issuer

import (
	"time"

	"github.com/stagedoor/stagedoor/auth"
)

// An Identity is what a verified token says.
type Identity struct {
	Provider string      // Name of the profile
	Issuer   string      // claim iss
	Task     auth.TaskID // derived, see Profile.Task
	Actor    Actor       // who is behind the run; zero: nobody known
	// ID is different for every token of all providers, at most 128 printable
	// ASCII characters: the provider's name, a colon and the claim jti, or a
	// digest of the claims where the provider gives no jti.
	ID       string
	IssuedAt time.Time // claim iat
	Expires  time.Time // claim exp
	// Claims are those with one value: texts as they are, whole numbers and
	// booleans as in JSON. They are the issuer's words about the job, some
	// chosen by its author (branch names): quote them before they are printed.
	Claims map[string]string

	rerunOn string // the forge on which a job may declare who pressed re-run; "" if it may not
}

// An Actor is the account of a person on a forge. Its fields are those of
// forge.Account, to which it converts.
type Actor struct {
	Forge string // name of the forge, ActorClaims.Forge
	Login string // in lower case: letters, digits, '.', '_' and '-', a letter, digit or '_' first
	ID    int64  // what an account keeps when it changes its name
}
