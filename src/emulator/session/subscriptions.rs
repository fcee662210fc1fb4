//! What a client subscribes to, within the service's limits.

use super::super::account::{Action, Route, route};
use super::super::mqtt::{self, Filter, Packet, QoS, Reason, Subscribe, Unsubscribe, Version};
use super::super::scenario::{DenialAnswer, Limits};
use super::{Effect, Ending, Permits, Session};

impl Session {
    pub(super) fn subscribe(
        &mut self,
        subscribe: Subscribe,
        permits: Permits<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Ending> {
        if subscribe.has_subscription_id {
            return Err(Ending::SubscriptionId);
        }
        let limits = &self.rules.limits;
        check_count(subscribe.filters.len(), limits)?;
        for filter in &subscribe.filters {
            check_filter(&filter.path, limits)?;
        }
        // The service does not answer a request for QoS 2 (AWS IoT Developer Guide, "MQTT").
        if subscribe.filters.iter().any(|filter| filter.qos == QoS::ExactlyOnce) {
            return Ok(());
        }
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        for filter in subscribe.filters {
            reasons.push(self.grant(filter, permits, effects)?);
        }
        effects.push(Effect::Send(Packet::SubAck { id: subscribe.id, reasons }));
        Ok(())
    }

    fn grant(
        &mut self,
        filter: Filter,
        permits: Permits<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<Reason, Ending> {
        if filter.path.starts_with("$share/") {
            return Ok(Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
        }
        if !permits(Action::Subscribe, &filter.path) {
            // For 3.1.1 clients the service was observed to end the connection; MQTT 5 has a reason code for this.
            let answer = self.rules.denials.subscribe.unwrap_or(match self.version {
                Version::V311 => DenialAnswer::Close,
                Version::V5 => DenialAnswer::Answer,
            });
            return match answer {
                DenialAnswer::Close => Err(Ending::Denied(Action::Subscribe, filter.path)),
                DenialAnswer::Answer => Ok(Reason::NOT_AUTHORIZED),
            };
        }
        let full = self.subscriptions.len() >= self.rules.limits.subscriptions_per_connection as usize;
        match self.subscriptions.iter_mut().find(|(known, _)| *known == filter.path) {
            Some((_, granted)) => *granted = filter.qos,
            None if full => return Err(Ending::TooManySubscriptions),
            None => self.subscriptions.push((filter.path.clone(), filter.qos)),
        }
        let granted = Reason::granted(filter.qos);
        if !filter.path.starts_with('$') {
            effects.push(Effect::Watch(filter));
        }
        Ok(granted)
    }

    pub(super) fn unsubscribe(
        &mut self,
        unsubscribe: Unsubscribe,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Ending> {
        check_count(unsubscribe.filters.len(), &self.rules.limits)?;
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        for filter in unsubscribe.filters {
            let before = self.subscriptions.len();
            self.subscriptions.retain(|(known, _)| *known != filter);
            let was_there = self.subscriptions.len() < before;
            reasons.push(if was_there { Reason::SUCCESS } else { Reason::NO_SUBSCRIPTION_EXISTED });
            effects.push(Effect::Unwatch(filter));
        }
        effects.push(Effect::Send(Packet::UnsubAck { id: unsubscribe.id, reasons }));
        Ok(())
    }
}

fn check_count(filters: usize, limits: &Limits) -> Result<(), Ending> {
    if filters > limits.filters_per_subscribe as usize {
        Err(Ending::TooManyFilters(filters))
    } else {
        Ok(())
    }
}

fn check_filter(filter: &str, limits: &Limits) -> Result<(), Ending> {
    if !mqtt::valid_filter(filter, limits) {
        return Err(Ending::Filter(filter.to_owned()));
    }
    match route(filter) {
        // `$aws/certificates/create/+` looks like a request topic, but selects at most the parent of its response
        // topics.
        _ if filter.contains(['+', '#']) => Ok(()),
        Route::CreateKeys | Route::CreateFromCsr | Route::Register { .. } => {
            Err(Ending::SubscribeToRequest(filter.to_owned()))
        }
        Route::ResponseTopic | Route::Reserved | Route::Other => Ok(()),
    }
}
