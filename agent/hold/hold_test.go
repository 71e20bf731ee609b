package hold_test

import (
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/agent/hold"
)

func TestSettings(t *testing.T) {
	grant := hold.Settings{Wait: time.Minute, Grace: hold.Exactly(0), Latest: at("13:00:00")}
	got := hold.Settings{Wait: 2 * time.Minute, Latest: at("12:30:00")}.Or(grant).Capped(20 * time.Minute)
	if want := (hold.Settings{Wait: 2 * time.Minute, Grace: hold.None, Hard: 20 * time.Minute, Latest: at("12:30:00")}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := (hold.Settings{Hard: time.Minute}).Capped(time.Hour).Capped(0).Hard; got != time.Minute {
		t.Errorf("a longer cap makes it %s", got)
	}
	if got := (hold.Settings{}).Capped(hold.Exactly(0)).Hard; got != hold.None {
		t.Errorf("a cap of nothing makes it %s", got)
	}
}

func TestReason(t *testing.T) {
	command := hold.Command{Args: []string{"make", "test all", "it's", "", "A=b"}}
	for want, r := range map[string]hold.Reason{
		`make 'test all' 'it'\''s' '' A=b failed with status 2`: {Command: command, Status: 2},
		`make 'test all' 'it'\''s' '' A=b has ended well`:       {Command: command},
		`the job is held`: {},
	} {
		if got := r.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestExitStatus(t *testing.T) {
	for result, want := range map[hold.Result]int{hold.Resumed: 0, hold.Expired: 0, hold.Lost: 0, hold.Canceled: 0, hold.Failed: 1} {
		if got := (hold.Outcome{Result: result}).ExitStatus(); got != want {
			t.Errorf("%s: %d, want %d", result, got, want)
		}
	}
}
