package splice

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(aloneVariable) == "TestLeakOfXCrypto" { // see TestLeakOfXCrypto
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}
