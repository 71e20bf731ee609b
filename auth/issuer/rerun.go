package issuer

import (
	"strconv"
	"strings"
)

// LabelTriggeringActor is the label by which an agent in a job of GitHub Actions
// declares who set off this attempt of the run: the job's GITHUB_TRIGGERING_ACTOR.
// No claim of its token says that.
const LabelTriggeringActor = "github.triggering-actor"

// declares says whether a job may declare who pressed re-run: the profile lets it,
// the run is of a kind whose people count, and somebody has pressed it, as claims
// say that the issuer vouches for. A first attempt was set off by the actor.
func (v *Verifier) declares(c claims) bool {
	if !v.profile.TriggeringActor || v.profile.Actor.Forge == "" || unmet(v.profile.Actor.When, c) != nil {
		return false
	}
	text, err := c.text("run_attempt")
	if err != nil {
		return false
	}
	attempt, err := strconv.Atoi(text)
	return err == nil && attempt > 1
}

// TriggeringActor is the account of whom the job declares to have pressed re-run.
// It is zero where the operator does not let jobs declare that (see
// [Profile.TriggeringActor]), in the first attempt of a run, for a program, and
// when it is the Actor: that one is known by number, and this one by name alone.
func (id *Identity) TriggeringActor(declared string) Actor {
	login := strings.ToLower(declared)
	if id.rerunOn == "" || !accountLogin.MatchString(declared) || login == id.Actor.Login {
		return Actor{}
	}
	return Actor{Forge: id.rerunOn, Login: login}
}
