//! A server that serves its queues: what it answers with, and the timer behind them.

use std::sync::Arc;

use daemon::http::{Http, Probes};
use daemon::{DatagramCounter, DatagramService, Handle, Protocols, StartError};

use crate::datagram::Datagrams;
use crate::http::QueueHttp;
use crate::metrics::QueueFigures;
use crate::queues::Queues;
use crate::service::Service;
use crate::timer::Timer;

/// The ports of a server, whichever queues it serves there.
pub(crate) struct Ports {
    pub(crate) handle: Handle,
    pub(crate) udp_text: bool,
    pub(crate) datagram_counter: DatagramCounter,
}

/// Queues that are served.
pub(crate) struct Active {
    pub(crate) queues: Arc<Queues>,
    pub(crate) protocols: Arc<Protocols>,
    pub(crate) datagrams: Arc<dyn DatagramService>,
    _timer: Timer,
}

/// What a port serves while these are the queues.
pub(crate) fn protocols(queues: &Arc<Queues>) -> Protocols {
    let service = Arc::new(Service(Arc::clone(queues)));
    let figures = QueueFigures(Arc::clone(queues));
    Protocols {
        frames: Some(Arc::clone(&service) as _),
        text: Some(service),
        http: Some(Http {
            handler: Arc::new(QueueHttp::new(queues)),
            probes: Probes::new("", Arc::new(figures)),
        }),
    }
}

impl Active {
    /// Starts the timer of these queues.
    ///
    /// # Errors
    /// [`StartError::Thread`].
    pub(crate) fn start(queues: Queues, ports: &Ports) -> Result<Self, StartError> {
        let queues = Arc::new(queues);
        let timer = Timer::start(&queues).map_err(StartError::Thread)?;
        let protocols = protocols(&queues);
        let datagrams = Datagrams::new(
            Arc::clone(&queues),
            ports.udp_text,
            ports.datagram_counter.clone(),
        );
        Ok(Self {
            queues,
            protocols: Arc::new(protocols),
            datagrams: Arc::new(datagrams),
            _timer: timer,
        })
    }

    /// From now on peers are served.
    pub(crate) fn serve(&self, ports: &Ports) {
        let handle = ports.handle.clone();
        self.queues.serve(Box::new(move || handle.is_stopping()));
    }
}
