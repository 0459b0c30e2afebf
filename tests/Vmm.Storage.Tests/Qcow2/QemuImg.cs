using System.Diagnostics;

namespace Vmm.Storage.Tests.Qcow2;

/// <summary>The judge of images: qemu-img of Debian's qemu-utils, which deploy/dev-setup installs.</summary>
internal static class QemuImg
{
    /// <summary>Runs it; its output. Any exit code but 0 fails the test.</summary>
    public static string Run(params string[] arguments)
    {
        (int code, string output) = Try(arguments);
        Assert.True(code == 0, $"qemu-img {string.Join(' ', arguments)}: exit code {code}\n{output}");
        return output;
    }

    /// <summary>Runs it; its exit code and output.</summary>
    public static (int Code, string Output) Try(params string[] arguments)
    {
        // A process that another test starts meanwhile has every lock of this one between its fork and its exec.
        (int Code, string Output) ended = Start("qemu-img", arguments);
        for (int again = 0; again < 20 && ended.Output.Contains("Failed to lock byte", StringComparison.Ordinal); again++)
        {
            Thread.Sleep(100);
            ended = Start("qemu-img", arguments);
        }

        return ended;
    }

    /// <summary>Runs another of its tools; its exit code and output.</summary>
    public static (int Code, string Output) Start(string program, string[] arguments)
    {
        ProcessStartInfo start = new(program, arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };
        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + error.Result);
    }
}
