package agent

import (
	"context"
	"log/slog"
)

// maxRefusalsLogged bounds what one guest can write into the log by asking for what it may not have. Further ones are at level
// debug.
const maxRefusalsLogged = 10

// refused logs that a guest was refused something, in the gateway's words: of a guest who signed in here the gateway sees nothing.
func (g *guest) refused(what, typ string, err error) {
	level := slog.LevelInfo
	if g.refusals.Add(1) > maxRefusalsLogged {
		level = slog.LevelDebug
	}
	g.log.Log(context.Background(), level, what, "type", clipped(typ), "error", err)
}
