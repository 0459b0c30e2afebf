using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Devices.VhostUser;

/// <summary>Hears when a back end does something that nobody asked for, above all when it ends. Of the loop's thread.</summary>
internal sealed class HangUpWatch(IoLoop loop, Action heard)
{
    private IoPoll? _poll; // of the back end at hand: a ring that has that of an earlier one ends it unheard
    private bool _armed;

    /// <summary>Listens, if it does not already.</summary>
    internal void Listen(FileDescriptorHandle socket)
    {
        if (_armed)
        {
            return;
        }

        if (_poll is null)
        {
            _poll = new IoPoll((poll, _) =>
            {
                if (ReferenceEquals(poll, _poll))
                {
                    _armed = false;
                    heard();
                }
            });
            loop.Add(_poll);
        }

        _armed = true;
        loop.WatchOnce(_poll, socket, PollEvents.Readable);
    }

    /// <summary>That back end is no more.</summary>
    internal void Forget()
    {
        _poll = null;
        _armed = false;
    }
}
