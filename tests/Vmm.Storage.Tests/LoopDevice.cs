using System.Diagnostics;

namespace Vmm.Storage.Tests;

/// <summary>A block device with blocks of 4 KiB over a temporary file: O_DIRECT takes whole blocks only.</summary>
internal sealed class LoopDevice : IDisposable
{
    private readonly TemporaryFile _file;

    public LoopDevice(long size)
    {
        _file = new TemporaryFile(size);
        Path = Run("--find", "--show", "--sector-size", "4096", _file.Path).Trim();
    }

    public string Path { get; }

    public void Dispose()
    {
        Run("--detach", Path);
        _file.Dispose();
    }

    private static string Run(params string[] arguments)
    {
        using Process losetup = Process.Start(new ProcessStartInfo("losetup", arguments) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true })!;
        string output = losetup.StandardOutput.ReadToEnd(), problem = losetup.StandardError.ReadToEnd();
        losetup.WaitForExit();
        return losetup.ExitCode == 0 ? output : throw new InvalidOperationException($"losetup {string.Join(' ', arguments)}: {problem}");
    }
}
