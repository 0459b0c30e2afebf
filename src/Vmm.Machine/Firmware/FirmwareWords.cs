using Vmm.Machine.Build;

namespace Vmm.Machine.Firmware;

/// <summary>
/// Carries what firmware says to who takes it, on a thread that may wait for a log: a vCPU's may not. The device bounds how much it is.
/// </summary>
internal sealed class FirmwareWords(Board board)
{
    private const int MostLines = 2 * Vmm.Devices.Firmware.FirmwareOutput.Burst;

    private readonly Lock _gate = new();
    private readonly Queue<string> _lines = [];
    private bool _telling;

    /// <summary>Takes a line, on a vCPU's thread.</summary>
    internal void Take(string line)
    {
        if (board.Resources.FirmwareSaid is not { } said)
        {
            return;
        }

        lock (_gate)
        {
            if (_lines.Count < MostLines) // else the log takes nothing: who would read more of it
            {
                _lines.Enqueue(line);
            }

            if (_telling)
            {
                return;
            }

            _telling = true;
        }

        if (board.Helpers.TryStart("firmware-words", () => Tell(said)) is not null)
        {
            lock (_gate)
            {
                _telling = false; // the next line tries again
            }
        }
    }

    private void Tell(Action<string> said)
    {
        while (true)
        {
            string line;
            lock (_gate)
            {
                if (!_lines.TryDequeue(out line!))
                {
                    _telling = false;
                    return;
                }
            }

            said(line);
        }
    }
}
