using System.Diagnostics;
using Vmm.HostNet;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Starts passt again for a VM whose user-mode network lost it. A worker that was taken over may ask without end: there is one passt of
/// this daemon's for it, and longer and longer pauses between them. Thread-safe.
/// </summary>
/// <param name="start">Starts one, and gives our end of its socket.</param>
/// <param name="told">Hears what came of it.</param>
internal sealed class UserNetStarts(Func<NetSpec, FileDescriptorHandle> start, Action<string> told) : IDisposable
{
    private static readonly TimeSpan s_longest = TimeSpan.FromSeconds(30), s_lasting = TimeSpan.FromSeconds(60);

    private readonly Lock _lock = new();
    private NetSpec? _net;
    private UnixStream? _kept;
    private TimeSpan _pause = TimeSpan.Zero;
    private long _last;
    private string? _problem;

    /// <summary>The first pause; they double.</summary>
    internal TimeSpan First { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>The VM has these networks, of which one that is user-mode may be started again from now on.</summary>
    internal void Serve(IEnumerable<NetSpec> nets)
    {
        lock (_lock)
        {
            _net = nets.FirstOrDefault(net => net.User is not null) ?? _net;
        }
    }

    /// <summary>The VM may have it no more: the passt that runs is its worker's alone.</summary>
    internal void LetGo() => Keep(null);

    /// <summary>Starts one; the one before ends.</summary>
    /// <returns>Its socket, which stays this object's; null, and why not.</returns>
    internal (FileDescriptorHandle? Socket, string? Problem) Start()
    {
        NetSpec net;
        lock (_lock)
        {
            if (_net is not { } served)
            {
                return (null, "this VM has no user-mode network");
            }

            if (_last != 0 && Stopwatch.GetElapsedTime(_last) < _pause)
            {
                return (null, "passt was started a moment ago");
            }

            bool lasted = _last == 0 || Stopwatch.GetElapsedTime(_last) > _pause + s_lasting;
            _pause = lasted ? First : TimeSpan.FromTicks(Math.Min(2 * _pause.Ticks, s_longest.Ticks));
            _last = Stopwatch.GetTimestamp();
            net = served;
        }

        try
        {
            UnixStream made = UnixStream.FromDescriptor(start(net));
            Keep(made);
            Tell("passt had ended and was started again: the guest's link is up", null);
            return (made, null);
        }
        catch (HostNetException cause)
        {
            Tell($"passt has ended, and the guest's link is down: {cause.Message}", cause.Message);
            return (null, cause.Message);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => Keep(null);

    private void Tell(string text, string? problem)
    {
        bool isNew = problem is null || !string.Equals(_problem, problem, StringComparison.Ordinal);
        _problem = problem;
        if (isNew)
        {
            told(text);
        }
    }

    // passt ends with the last descriptor of its socket; one that a worker keeps aside is ended here.
    private void Keep(UnixStream? stream)
    {
        UnixStream? before;
        lock (_lock)
        {
            (before, _kept) = (_kept, stream);
        }

        if (stream is not null)
        {
            before?.Shutdown();
        }

        before?.Dispose();
    }
}
