using Vmm.Io;

namespace Vmm.Devices.VhostUser;

/// <summary>
/// Hears from back ends that their configuration changed, and reads it again. It is the only thing that a back end may ask for. Of the
/// loop's thread.
/// </summary>
/// <param name="link">Whose back ends.</param>
/// <param name="loop">The loop.</param>
/// <param name="front">The back end that can be asked now; null: none.</param>
/// <param name="lose">It is of no use, and why.</param>
internal sealed class ConfigWatch(VhostUserLink link, IoLoop loop, Func<VhostUserFrontEnd?> front, Action<string> lose)
{
    private HangUpWatch? _watch;

    /// <summary>Listens from here on, where back ends can ask.</summary>
    internal void Begin()
    {
        if (link.Requests is { } requests)
        {
            _watch = new HangUpWatch(loop, Hear);
            _watch.Listen(requests.Handle);
        }
    }

    private void Hear()
    {
        bool sound = link.Requests!.TryTake(out bool changed);
        if (front() is { } current)
        {
            try
            {
                if (!sound)
                {
                    throw new VhostUserException("it asks what is no request");
                }

                if (changed)
                {
                    current.ReadConfig();
                    link.Configured?.Invoke(current.Config.ToArray(), false);
                }
            }
            catch (VhostUserException cause)
            {
                lose(cause.Message);
            }
        }

        _watch!.Listen(link.Requests!.Handle);
    }
}
