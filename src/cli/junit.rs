//! Thresholds as JUnit XML, which CI systems show.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::metrics::threshold::Judgement;

/// Each threshold as a test.
pub(in crate::cli) fn xml(verb: &str, judgements: &[Judgement], elapsed: Duration) -> String {
    let mut suite = TestSuite::new(format!("fleetmint {verb}"));
    suite.set_time(elapsed);
    for Judgement { threshold, passed, shown, .. } in judgements {
        let mut status = if *passed {
            TestCaseStatus::success()
        } else {
            TestCaseStatus::non_success(NonSuccessKind::Failure)
        };
        status.set_message(format!("measured {shown}"));
        let mut case = TestCase::new(threshold.as_str(), status);
        case.set_classname("thresholds");
        case.set_system_out(format!("measured {shown}"));
        suite.add_test_case(case);
    }
    let mut report = Report::new("fleetmint");
    report.add_test_suite(suite);
    report.to_string().expect("XML is written to memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_threshold_is_a_test_and_what_was_missed_a_failure() {
        let judgement = |threshold: &str, passed, shown: &str| Judgement {
            threshold: threshold.to_owned(),
            passed,
            measured: None,
            shown: shown.to_owned(),
        };
        let judgements = [judgement("missed=0", true, "0"), judgement("rejected<0.1%", false, "3.00 %")];
        let xml = xml("load create", &judgements, Duration::from_secs(2));
        assert_eq!(
            xml,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuites name=\"fleetmint\" tests=\"2\" skipped=\"0\" failures=\"1\" errors=\"0\">\n\
             \x20   <testsuite name=\"fleetmint load create\" tests=\"2\" skipped=\"0\" errors=\"0\" failures=\"1\" \
             time=\"2.000\">\n\
             \x20       <testcase name=\"missed=0\" classname=\"thresholds\">\n\
             \x20           <system-out>measured 0</system-out>\n\
             \x20       </testcase>\n\
             \x20       <testcase name=\"rejected&lt;0.1%\" classname=\"thresholds\">\n\
             \x20           <failure message=\"measured 3.00 %\"/>\n\
             \x20           <system-out>measured 3.00 %</system-out>\n\
             \x20       </testcase>\n\
             \x20   </testsuite>\n\
             </testsuites>\n"
        );
    }
}
