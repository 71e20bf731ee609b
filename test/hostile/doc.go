// Package hostile tests the gateway as it is installed against those who mean it
// harm: strangers on its listeners, guests with a key, hosts with a valid token.
// After each attack an innocent guest, with a task of its own, has to get in, and no
// panic may have been counted.
//
// What is tested where. Names without a package are in this one.
//
//	offered keys count for nothing          gateway: TestOfferedKeyDoesNotCount, TestUserNameOfSignInCounts, TestPublicHalfLearnsNothing
//	messages ahead of the sign-in           TestMessagesBeforeSignIn
//	floods of sign-ins                      TestAuthFloods; gateway: TestAuthTries, TestSlowAuthorizer
//	giant RSA keys                          TestGiantRSAKeys; auth: TestCheckKey
//	security keys without a touch           auth: TestSecurityKeys, TestGrantWaivesTheTouchOfAKey; test/e2e: TestSecurityKeys
//	certificates                            auth: TestCertificatesThatAreRefused, FuzzUserCertificate
//	silent and slow connections             TestTenThousandSilentConnections, TestSilentConnectionsWithDefaults; gateway: TestCrowdIsPushedOut
//	penalties of addresses                  TestPenaltyThroughProxy; gateway: TestPenalty*, TestPenalties*; cmd/stagedoor: TestPenaltiesAreComplete
//	PROXY protocol                          TestProxyProtocol; cmd/stagedoor: TestProxyProtocol, FuzzProxyHeader
//	garbage around the key exchange         TestWireBeforeKeyExchange, TestWireAfterSignIn
//	rekeying                                gateway: TestRekeyUnderLoad, TestRekeyByStockClient; gateway/splice: TestBudgetOfStalledRekey
//	lengths without measure                 TestWireBeforeKeyExchange, TestHTTPBombs; tunnel: FuzzHello, TestStrangers
//	WebSockets                              TestWebSocketBombs
//	what a host does to its tunnel          TestTunnelAbuse, TestHostThatNeverAccepts; tunnel: TestHostileAgent, TestAgentThatClosesAtRandom
//	what a host does to its guests          gateway: TestHostOpensChannels, TestHostFloods; gateway/splice: TestFlood*
//	stalled channels                        TestStalledChannels; gateway/splice: TestBudget*
//	panics                                  gateway: TestPanic*; gateway/splice: TestHookPanics, TestPanicWhileDialling; agent: TestPanicInACallback
//	a start that fails closed               TestStartFailsClosed; cmd/stagedoor: TestMistakesStartNothing, TestStartIsAllOrNothing
//	the environment of sessions             agent: TestGuestEnv, TestEnvironmentOfAProgram; test/e2e: TestTokenStaysSecret
//	NUL bytes, odd payloads                 agent: TestNULsAreRefused, FuzzSessionPayloads
//	names that forge logs or terminals      TestLogInjection; auth: TestIdentityNamesArePrintable, FuzzParseTaskID
//	names that forge an ssh_config          cmd/stagedoor: FuzzSSHConfig; agent: TestGatewayCannotForgeTheCommand
//	the gateway as a way to other networks  TestGatewayNeverDials
//	copies of a token                       gateway: TestTokenIsUsedOnce, TestPenaltyOfReplayedTokens
//	what an operator refuses                gateway: TestBlocksOutliveTheGateway, TestBlocksReachWhoDrains, TestWhoEndedIt
//	another tenant's task                   TestOtherTenant; gateway: TestJumpRefusals, TestJumpIsJudgedEachTime
//
// A path in sftp cannot lead out of a configured root, as there is none: a guest is
// the user of the job, and sftp shows what that user may read.
package hostile
