using System.Text;
using System.Text.Json;

namespace Vmm.Cpu;

/// <summary>
/// What KVM of a host can do. A program that drives KVM takes it and prints it (<c>vmm-run survey</c>, <c>vmm-worker survey</c>); who only
/// wants to know starts that program (<see cref="SurveyProgram"/>).
/// </summary>
/// <param name="Kind"><c>hardware</c>, <c>emulating</c> or <c>none</c>.</param>
/// <param name="Problem">Why there is none; null otherwise.</param>
/// <param name="Processor">The processor that it can show to guests; null when there is none.</param>
public sealed record KvmSurvey(string Kind, string? Problem, CpuDescription? Processor)
{
    /// <summary>The argument that makes a program print its survey and end.</summary>
    public const string Command = "survey";

    /// <summary>Bytes that the JSON may have; what is longer is none.</summary>
    public const int LongestJson = 1 << 20;

    private const string KindName = "kvm", ProblemName = "kvmProblem", ProcessorName = "cpu";

    /// <summary>There is no KVM, for this reason.</summary>
    public static KvmSurvey None(string problem) => new("none", problem, null);

    /// <summary>The models that guests of this host can have.</summary>
    public IReadOnlyList<string> CpuModels => Processor is null ? [] : CpuModel.RunnableOn(Processor);

    /// <summary>As JSON, for <see cref="Read"/>.</summary>
    public string ToJson()
    {
        using MemoryStream bytes = new();
        using (Utf8JsonWriter json = new(bytes))
        {
            json.WriteStartObject();
            json.WriteString(KindName, Kind);
            json.WriteString(ProblemName, Problem);
            json.WritePropertyName(ProcessorName);
            if (Processor is null)
            {
                json.WriteNullValue();
            }
            else
            {
                json.WriteRawValue(CpuDescriptionJson.Write(Processor));
            }

            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(bytes.ToArray());
    }

    /// <summary>Reads what <see cref="ToJson"/> wrote.</summary>
    /// <exception cref="InvalidDataException">It is no survey.</exception>
    public static KvmSurvey Read(string text)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(text);
            JsonElement all = document.RootElement;
            string kind = all.GetProperty(KindName).GetString() ?? "";
            JsonElement processor = all.GetProperty(ProcessorName);
            return kind switch
            {
                "none" => None(all.GetProperty(ProblemName).GetString() ?? "no reason was given"),
                "hardware" or "emulating" => new KvmSurvey(kind, null, CpuDescriptionJson.Read(processor.GetRawText())),
                _ => throw new InvalidDataException("its kind of KVM is not known"),
            };
        }
        catch (Exception cause) when (cause is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            throw new InvalidDataException($"it is no survey of KVM: {cause.Message}", cause);
        }
    }
}
