package registry_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/stagedoor/stagedoor/gateway/registry"
	"github.com/stagedoor/stagedoor/gateway/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registry.Registry { return registry.NewMemory() })
}
