using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace Vmm.Perf;

/// <summary>One run of a VMM process, timed from just before the fork by its parent.</summary>
internal sealed class Launch : IDisposable
{
    private readonly Process _process;
    private readonly Stream _serial;
    private readonly Task<string> _errors;
    private readonly Timer _deadline;
    private readonly StringBuilder _text = new();
    private readonly string _what;
    private bool _late;

    private Launch(Process process, string what, TimeSpan limit)
    {
        _process = process;
        _what = what;
        _serial = process.StandardOutput.BaseStream;
        process.StandardInput.Close();
        _errors = process.StandardError.ReadToEndAsync();
        _deadline = new Timer(_ => EndLate(), null, limit, Timeout.InfiniteTimeSpan);
    }

    internal string Text => _text.ToString();

    internal static Launch Start(string[] command, TimeSpan limit)
    {
        ProcessStartInfo info = new(command[0])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };
        foreach (string argument in command.AsSpan(1))
        {
            info.ArgumentList.Add(argument);
        }

        // The clock starts in Program, before this: fork and exec belong to what a user waits for.
        return new Launch(Process.Start(info)!, string.Join(' ', command), limit);
    }

    /// <summary>Waits for the first serial byte.</summary>
    internal void WaitForFirstByte() => WaitFor(string.Empty);

    /// <summary>Waits until the serial output contains <paramref name="text"/>.</summary>
    internal void WaitFor(string text)
    {
        byte[] buffer = new byte[4096];
        while (_text.Length == 0 || !Text.Contains(text, StringComparison.Ordinal))
        {
            int count = _serial.Read(buffer);
            if (count == 0)
            {
                throw Failed($"ended without '{text}'");
            }

            _text.Append(Encoding.Latin1.GetString(buffer, 0, count));
        }
    }

    /// <summary>Reads to the end; the answer is the process exit code.</summary>
    internal int WaitForEnd()
    {
        byte[] buffer = new byte[4096];
        int count;
        while ((count = _serial.Read(buffer)) > 0)
        {
            _text.Append(Encoding.Latin1.GetString(buffer, 0, count));
        }

        _process.WaitForExit();
        return _late ? throw Failed("did not end in time") : _process.ExitCode;
    }

    /// <summary>Peak resident and private dirty memory so far, in KiB.</summary>
    internal (double PeakResident, double PrivateDirty) Memory()
    {
        string folder = $"/proc/{_process.Id.ToString(CultureInfo.InvariantCulture)}";
        return (ProcessFigures.Field($"{folder}/status", "VmHWM:"), ProcessFigures.PrivateDirty(_process.Id));
    }

    internal InvalidOperationException Failed(string why) =>
        new($"{why}{(_late ? " (deadline passed)" : "")}\n  command: {_what}\n  serial: {Text.Trim()}\n  stderr: "
            + $"{(_process.HasExited ? _errors.Result.Trim() : "")}");

    public void Dispose()
    {
        _deadline.Dispose();
        if (!_process.HasExited)
        {
            _process.Kill();
            _process.WaitForExit();
        }

        _process.Dispose();
    }

    private void EndLate()
    {
        _late = true;
        if (!_process.HasExited)
        {
            _process.Kill();
        }
    }
}
