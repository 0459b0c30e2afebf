using System.ComponentModel;
using System.Diagnostics;

namespace Vmm.Cpu;

/// <summary>Asks a program for its survey of KVM, in a process of its own that has an end.</summary>
public static class SurveyProgram
{
    /// <summary>Starts the program with the one argument <see cref="KvmSurvey.Command"/> and reads what it prints.</summary>
    /// <param name="path">The program.</param>
    /// <param name="limit">How long it may take; then it is killed.</param>
    /// <returns>Its survey; one of no KVM, with the reason, when the program cannot be started, fails or prints something else.</returns>
    public static KvmSurvey Ask(string path, TimeSpan limit)
    {
        try
        {
            ProcessStartInfo start = new(path, [KvmSurvey.Command])
            {
                UseShellExecute = false,
                RedirectStandardOutput = true,
                RedirectStandardInput = true,
            };
            using Process process = Process.Start(start) ?? throw new InvalidDataException("it did not start");
            process.StandardInput.Close();
            try
            {
                return Read(path, process, limit);
            }
            finally
            {
                Kill(process);
            }
        }
        catch (Exception cause) when (cause is Win32Exception or InvalidDataException or IOException)
        {
            return KvmSurvey.None($"{path} does not tell what KVM can do: {cause.Message}");
        }
    }

    private static KvmSurvey Read(string path, Process process, TimeSpan limit)
    {
        using CancellationTokenSource deadline = new(limit);
        char[] text = new char[KvmSurvey.LongestJson];
        int length;
        try
        {
            length = process.StandardOutput.ReadBlockAsync(text, deadline.Token).AsTask().GetAwaiter().GetResult();
        }
        catch (OperationCanceledException)
        {
            return KvmSurvey.None($"{path} did not tell within {limit.TotalSeconds:0} s what KVM can do");
        }

        return length < text.Length ? KvmSurvey.Read(new string(text, 0, length)) : throw new InvalidDataException("it prints too much");
    }

    private static void Kill(Process process)
    {
        try
        {
            process.Kill();
        }
        catch (InvalidOperationException)
        {
            // it has ended already
        }
    }
}
