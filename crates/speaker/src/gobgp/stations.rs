//! Monitoring stations, as GoBGP's API has them.

use super::{proto, timestamp};
use crate::{
    config::{MonitoringPolicy, SentPolicy, StationSettings},
    view::StationView,
};
use isthmus_bgp::bmp;
use proto::list_bmp_response::{BmpStation, bmp_station};
use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tonic::Status;

/// Where a station listens; port 0 is the usual one.
pub(super) fn read_address(address: &str, port: u32) -> Result<SocketAddr, Status> {
    let ip = address.parse().map_err(|_why| {
        Status::invalid_argument(format!("\"{address}\" is no IP address of a monitoring station"))
    })?;
    match u16::try_from(port) {
        Ok(0) => Ok(SocketAddr::new(ip, bmp::PORT)),
        Ok(port) => Ok(SocketAddr::new(ip, port)),
        Err(_more) => Err(Status::invalid_argument(format!("{port} is no port: write one up to 65535"))),
    }
}

pub(super) fn read(request: proto::AddBmpRequest) -> Result<(SocketAddr, StationSettings), Status> {
    use proto::add_bmp_request::MonitoringPolicy as Policy;
    let address = read_address(&request.address, request.port)?;
    let policy = match Policy::try_from(request.policy) {
        Ok(Policy::Pre) => MonitoringPolicy::PrePolicy,
        Ok(Policy::Post) => MonitoringPolicy::PostPolicy,
        Ok(Policy::Both) => MonitoringPolicy::Both,
        Ok(Policy::Local) => MonitoringPolicy::LocalRib,
        Ok(Policy::All) => MonitoringPolicy::All,
        Err(_unknown) => {
            let text = format!("there is no monitoring policy with the number {}", request.policy);
            return Err(Status::invalid_argument(text));
        }
    };
    let seconds = u16::try_from(request.statistics_timeout).map_err(|_bounds| {
        let text = format!("{} is no time between reports: write 0 to 65535 s", request.statistics_timeout);
        Status::invalid_argument(text)
    })?;
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    let settings = StationSettings {
        policy,
        sent: SentPolicy::None,
        statistics: (seconds != 0).then(|| Duration::from_secs(seconds.into())),
        sys_name: said(request.sys_name),
        sys_descr: said(request.sys_descr),
    };
    Ok((address, settings))
}

/// GoBGP has no word for the state: a station is up where it came later than it went. Times that never were are 1970.
pub(super) fn show(view: &StationView) -> proto::ListBmpResponse {
    let at = |time: Option<SystemTime>| Some(timestamp(time.unwrap_or(UNIX_EPOCH)));
    let station = BmpStation {
        conf: Some(bmp_station::Conf {
            address: view.address.ip().to_string(),
            port: view.address.port().into(),
        }),
        state: Some(bmp_station::State { uptime: at(view.status.up_at), downtime: at(view.status.down_at) }),
    };
    proto::ListBmpResponse { station: Some(station) }
}
