package servicestest

import "os"

// LongProof reports whether the proofs run in full, as make proof has them.
func LongProof() bool { return os.Getenv("GATEHOUSE_PROOF") == "1" }
