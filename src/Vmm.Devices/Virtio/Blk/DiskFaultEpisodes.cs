using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// Tells of a disk that fails once per episode, not per request. An episode ends when a write succeeds again, but lasts a minute at least:
/// a full file system still takes writes to blocks that it has, and a guest that mixes both would begin an episode with every other
/// request. Any thread.
/// </summary>
/// <param name="begun">Hears of each episode, on the I/O thread that met it: it must be quick.</param>
/// <param name="time">The clock.</param>
internal sealed class DiskFaultEpisodes(Action<DiskStatus>? begun, TimeProvider time)
{
    private static readonly TimeSpan s_least = TimeSpan.FromMinutes(1);

    private readonly Lock _gate = new();
    private Episode _noSpace, _ioError;
    private volatile bool _awaitsWrite;

    /// <summary>The host failed a request.</summary>
    internal void Failed(DiskStatus status)
    {
        lock (_gate)
        {
            ref Episode episode = ref _ioError;
            if (status == DiskStatus.NoSpace)
            {
                episode = ref _noSpace;
            }

            _awaitsWrite |= !episode.Recovered;
            if (episode.Open && (!episode.Recovered || time.GetElapsedTime(episode.Begun) < s_least))
            {
                return;
            }

            episode = new Episode { Open = true, Begun = time.GetTimestamp() };
            _awaitsWrite = true;
        }

        begun?.Invoke(status);
    }

    /// <summary>A write succeeded. Costs nothing as long as nothing failed.</summary>
    internal void Written()
    {
        if (!_awaitsWrite)
        {
            return;
        }

        lock (_gate)
        {
            _noSpace.Recovered = _ioError.Recovered = true;
            _awaitsWrite = false;
        }
    }

    private struct Episode
    {
        public bool Open, Recovered;
        public long Begun;
    }
}
